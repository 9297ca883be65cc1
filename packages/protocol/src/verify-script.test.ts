import { describe, expect, test } from 'vitest';
import { change, createFleet, keyOf, NOW, payloadOf, SOURCE, scriptOf } from '../test/fleet.ts';
import { fleet, NODE, refused, signed, verify } from '../test/verify.ts';
import {
  type Authority,
  base64,
  canonicalBytes,
  fromBase64,
  keyIdOf,
  LIMITS,
  signScript,
  utf8,
  verifyScript,
} from './index.ts';
import { nodeVerifier } from './node/index.ts';

const raw = (value: unknown) => utf8(JSON.stringify(value));

describe('a sound script', () => {
  test('is admitted with what was signed and who signed it', () => {
    const envelope = scriptOf(fleet);
    const verified = verify(envelope);
    expect(verified).toMatchObject({
      keyids: [fleet.operator.keyid],
      existing: false,
      payload: { deployment: 'web', script: { source: SOURCE } },
    });
    expect(verified.grants.map(({ name }) => name)).toEqual(['olivia']);
    expect(verified.digest).toMatch(/^[0-9a-f]{64}$/);
  });

  test('is the same script parsed or raw', () => {
    const envelope = scriptOf(fleet);
    expect(verify(raw(envelope))).toEqual(verify(envelope));
  });

  test('passes without a node at a party that only routes', () => {
    const { node: _, ...routed } = { node: NODE };
    const input = {
      envelope: scriptOf(fleet),
      authority: fleet.authority,
      profile: 'admit',
    } as const;
    expect(verifyScript(nodeVerifier, { ...input, ...routed, nowSeconds: NOW }).existing).toBe(
      false,
    );
  });

  test('may be a destroy without a script', () => {
    const { script: _, ...payload } = payloadOf(fleet, { payload: { mode: 'destroy' } });
    expect(verify(signScript(payload, [fleet.operator])).payload.script).toBeUndefined();
  });
});

describe('reading', () => {
  test('over the size of a submission is E_SIZE', () => {
    expect(refused(new Uint8Array(LIMITS.submissionBytesMax + 1)).code).toBe('E_SIZE');
  });

  test('a payload of 256 KiB fits and one byte more is E_SIZE', () => {
    const filled = (size: number) => {
      const empty = canonicalBytes(payloadOf(fleet, { draft: { source: '//' } })).length;
      const source = `//${'x'.repeat(size - empty)}`;
      return signed(payloadOf(fleet, { draft: { source } }));
    };
    expect(refused(filled(LIMITS.payloadBytesMax)).code).toBe('none');
    expect(refused(filled(LIMITS.payloadBytesMax + 1)).code).toBe('E_SIZE');
  });

  test.for([
    ['no JSON', utf8('{'), undefined],
    [
      'a duplicate key',
      utf8('{"payloadType":"a","payloadType":"b","payload":"","signatures":[]}'),
      undefined,
    ],
    ['a byte order mark', utf8(`\uFEFF${JSON.stringify(scriptOf(fleet))}`), undefined],
    ['an unknown member', raw({ ...scriptOf(fleet), extra: 1 }), 'extra'],
    ['a missing member', raw({ payloadType: '', payload: '' }), 'signatures'],
    ['a payload that is no text', raw({ ...scriptOf(fleet), payload: 7 }), 'payload'],
    ['malformed base64', raw({ ...scriptOf(fleet), payload: 'e30' + '*' }), 'payload'],
    ['loose trailing bits', raw({ ...scriptOf(fleet), payload: 'QR==' }), 'payload'],
  ] as const)('%s is E_ENVELOPE', ([, bytes, path]) => {
    expect(refused(bytes)).toEqual({ code: 'E_ENVELOPE', path });
  });

  test.for([
    'application/vnd.hypha.cancel.v1+json',
    'application/vnd.hypha.script.v2+json',
    'application/vnd.hypha.script.v1+json ',
    '',
  ])('the payload type %j is E_PAYLOAD_TYPE', (payloadType) => {
    expect(refused({ ...scriptOf(fleet), payloadType }).code).toBe('E_PAYLOAD_TYPE');
  });
});

describe('the form of signatures', () => {
  const envelope = scriptOf(fleet);
  const [signature = { keyid: '', sig: '' }] = envelope.signatures;
  const others = (count: number) =>
    Array.from({ length: count }, (_, index) => ({ ...signature, keyid: keyOf(`${index}`).keyid }));

  test.for([
    ['no signature', [], 'signatures'],
    ['nine signatures', others(9), 'signatures'],
    ['one key twice', [signature, signature], 'signatures.1.keyid'],
    [
      'malformed base64',
      [{ ...signature, sig: `${signature.sig.slice(0, -1)}*` }],
      'signatures.0.sig',
    ],
    [
      '63 bytes',
      [{ ...signature, sig: base64(fromBase64(signature.sig).slice(1)) }],
      'signatures.0.sig',
    ],
    ['nothing', [{ ...signature, sig: '' }], 'signatures.0.sig'],
  ] as const)('%s is E_SIG_FORMAT', ([, signatures, path]) => {
    expect(refused({ ...envelope, signatures: [...signatures] })).toEqual({
      code: 'E_SIG_FORMAT',
      path,
    });
  });
});

describe('keys', () => {
  test('a key the authority never granted anything is E_UNKNOWN_KEY', () => {
    const envelope = scriptOf(fleet, { signers: [keyOf('stranger')] });
    expect(refused(envelope)).toEqual({ code: 'E_UNKNOWN_KEY', path: 'signatures.0.keyid' });
  });

  test('an unknown key beside a known one is E_UNKNOWN_KEY', () => {
    const envelope = scriptOf(fleet, { signers: [fleet.operator, keyOf('stranger')] });
    expect(refused(envelope)).toEqual({ code: 'E_UNKNOWN_KEY', path: 'signatures.1.keyid' });
  });

  test('the name of a known key over the signature of another is E_SIG_INVALID', () => {
    const envelope = scriptOf(fleet, {
      signers: [{ ...keyOf('stranger'), keyid: fleet.operator.keyid }],
    });
    expect(refused(envelope).code).toBe('E_SIG_INVALID');
  });

  test('a revoked key is E_KEY_REVOKED, in both profiles', () => {
    const revoke = { type: 'revoke', keyid: fleet.operator.keyid, reason: 'lost' } as const;
    const authority = change(fleet.authority, revoke, [fleet.admin]);
    expect(refused(scriptOf(fleet), { authority }).code).toBe('E_KEY_REVOKED');
    expect(refused(scriptOf(fleet), { authority, profile: 'execute' }).code).toBe('E_KEY_REVOKED');
  });

  test.for([
    ['before its grant begins', { notBefore: NOW + 2 }],
    ['after its grant ended', { notAfter: NOW }],
  ] as const)('%s a key is E_KEY_EXPIRED to admit and good to execute', ([, grant]) => {
    const { authority } = createFleet({ ...grant });
    const envelope = scriptOf({ ...fleet, authority });
    expect(refused(envelope, { authority }).code).toBe('E_KEY_EXPIRED');
    expect(refused(envelope, { authority, profile: 'execute' }).code).toBe('none');
  });

  test('a small-order key that got into a record is E_WEAK_KEY', () => {
    const publicKey = new Uint8Array(32);
    const keyid = keyIdOf(nodeVerifier, publicKey);
    const record = fleet.authority.findKey(fleet.operator.keyid);
    // No authority would grant it; this one is made to know it.
    const authority: Authority = Object.create(fleet.authority, {
      findKey: { value: () => ({ ...record, keyid, publicKey }) },
    });
    const envelope = scriptOf(fleet, { signers: [{ ...fleet.operator, keyid }] });
    expect(refused(envelope, { authority }).code).toBe('E_WEAK_KEY');
  });
});

describe('signatures', () => {
  const envelope = scriptOf(fleet);
  const sig = fromBase64(envelope.signatures[0]?.sig ?? '');
  const withSig = (bytes: Uint8Array) => ({
    ...envelope,
    signatures: [{ keyid: fleet.operator.keyid, sig: base64(bytes) }],
  });

  test('S + L is E_SIG_MALLEABLE', () => {
    const L = 2n ** 252n + 27742317777372353535851937790883648493n;
    let s = L;
    for (let i = 0; i < 32; i++) s += BigInt(sig[32 + i] ?? 0) << BigInt(8 * i);
    const other = sig.slice();
    for (let i = 0; i < 32; i++) other[32 + i] = Number((s >> BigInt(8 * i)) & 0xffn);
    expect(refused(withSig(other)).code).toBe('E_SIG_MALLEABLE');
  });

  test('any changed byte of the payload is E_SIG_INVALID', () => {
    const payload = fromBase64(envelope.payload);
    for (let at = 0; at < payload.length; at += 97) {
      const changed = payload.slice();
      changed[at] = (changed[at] ?? 0) ^ 1;
      expect(refused({ ...envelope, payload: base64(changed) }).code).toBe('E_SIG_INVALID');
    }
  });

  test('one bad signature refuses the envelope though another holds', () => {
    const two = scriptOf(fleet, { signers: [fleet.operator, fleet.admin] });
    const [good, other] = two.signatures;
    if (good === undefined || other === undefined) throw new Error('no signatures');
    expect(refused({ ...two, signatures: [good, { ...other, sig: good.sig }] })).toEqual({
      code: 'E_SIG_INVALID',
      path: 'signatures.1',
    });
  });
});

describe('the payload', () => {
  const payload = payloadOf(fleet);
  const text = new TextDecoder().decode(canonicalBytes(payload));

  test.for([
    ['no JSON', utf8('not json')],
    ['a duplicate key', utf8(text.replace('{', '{"v":1,'))],
    ['a byte order mark', utf8(`\uFEFF${text}`)],
    ['invalid UTF-8', new Uint8Array([0xff])],
    ['a fraction in the input', utf8(text.replace('"input":{}', '"input":{"x":0.5}'))],
  ] as const)('with %s is E_PAYLOAD', ([, bytes]) => {
    expect(refused(signed(bytes)).code).toBe('E_PAYLOAD');
  });

  test.for([
    ['an unknown member', { extra: 1 }, 'extra'],
    ['an unknown member inside', { aud: { ...payload.aud, all: true } }, 'aud.all'],
    ['another version', { v: 2 }, 'v'],
    ['a realm with a slash', { realm: 'a/b' }, 'realm'],
    ['a deployment with a leading dash', { deployment: '-web' }, 'deployment'],
    ['a name followed by a line break', { deployment: 'web\n' }, 'deployment'],
    ['generation 0', { generation: 0 }, 'generation'],
    ['a fractional generation', { generation: 1.5 }, undefined],
    ['no node', { aud: { nodes: [], count: 1 } }, 'aud.nodes'],
    ['a node twice', { aud: { nodes: [fleet.nodeId, fleet.nodeId], count: 1 } }, 'aud.nodes'],
    ['a count over its candidates', { aud: { nodes: [fleet.nodeId], count: 2 } }, 'aud.count'],
    ['a short nonce', { nonce: 'abc' }, 'nonce'],
    ['nbf after exp', { nbf: payload.exp + 1 }, 'nbf'],
    ['another engine', { script: { ...payload.script, engine: 'v8' } }, 'script.engine'],
    ['a destroy with a script', { mode: 'destroy' }, 'script'],
    ['an apply without one', { script: undefined }, 'script'],
    ['an input over 16 KiB', { input: { x: 'x'.repeat(16 * 1024) } }, 'input'],
    ['a message over 256 bytes', { message: 'é'.repeat(129) }, 'message'],
    [
      'no memory to run in',
      { limits: { ...payload.limits, memoryBytes: 1 } },
      'limits.memoryBytes',
    ],
  ] as const)('with %s is E_PAYLOAD', ([, changed, path]) => {
    expect(refused(signed({ ...payload, ...changed }))).toEqual({ code: 'E_PAYLOAD', path });
  });

  test('whose source is not what its digest says is E_DIGEST', () => {
    const script = { engine: 'quickjs-es2023', sha256: '0'.repeat(64), source: SOURCE };
    expect(refused(signed({ ...payload, script }))).toEqual({
      code: 'E_DIGEST',
      path: 'script.sha256',
    });
  });
});

test('of several faults the first in the order of the checks is named', () => {
  const payload = payloadOf(fleet, {
    payload: {
      realm: 'other',
      exp: NOW - 10,
      nbf: NOW - 20,
      aud: { nodes: [`node_${'b'.repeat(32)}`], count: 1 },
    },
  });
  const faulty = { ...payload, script: { ...payload.script, sha256: '0'.repeat(64) } };
  expect(refused(signed(faulty)).code).toBe('E_DIGEST');
  expect(refused(signed(payload)).code).toBe('E_AUDIENCE');
  const ours = { ...payload, aud: { nodes: [fleet.nodeId], count: 1 } };
  expect(refused(signed(ours), { node: { ...NODE, realms: ['*'] } }).code).toBe('E_EXPIRED');
  expect(
    refused(signed({ ...ours, nbf: NOW, exp: NOW + 5 }), { node: { ...NODE, realms: ['*'] } }).code,
  ).toBe('E_SCOPE');
});
