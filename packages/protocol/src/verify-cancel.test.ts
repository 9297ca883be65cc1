import { describe, expect, test } from 'vitest';
import {
  change,
  createFleet,
  entropyOf,
  grantOf,
  keyOf,
  NOW,
  refusalOf,
  scriptOf,
} from '../test/fleet.ts';
import { fleet, NODE } from '../test/verify.ts';
import {
  type Authority,
  assertMayCancel,
  base64,
  buildCancelPayload,
  type CancelPayload,
  canonicalBytes,
  type Envelope,
  fromBase64,
  type Grant,
  keyIdOf,
  LIMITS,
  type Signer,
  signCancel,
  signEnvelope,
  utf8,
  type VerifyCancelInput,
  verifyCancel,
} from './index.ts';
import { nodeVerifier } from './node/index.ts';

const TARGET = '1'.repeat(64);
const OTHER_NODE = `node_${'b'.repeat(32)}`;

function payloadOf(changes: Partial<CancelPayload> = {}): CancelPayload {
  const cancel = {
    realm: 'default',
    nodes: [fleet.nodeId],
    target: TARGET,
    authority: fleet.authority,
  };
  return { ...buildCancelPayload(cancel, entropyOf('cancel')), ...changes };
}

/** Signs any object, also such as no builder would make. */
const signed = (payload: unknown, ...signers: readonly Signer[]): Envelope =>
  signEnvelope(
    'cancel',
    payload instanceof Uint8Array ? payload : canonicalBytes(payload),
    signers.length === 0 ? [fleet.operator] : signers,
  );

function verify(envelope: Envelope | Uint8Array, options: Partial<VerifyCancelInput> = {}) {
  return verifyCancel(nodeVerifier, {
    envelope,
    authority: fleet.authority,
    nowSeconds: NOW + 1,
    node: NODE,
    ...options,
  });
}
const refused = (envelope: Envelope | Uint8Array, options: Partial<VerifyCancelInput> = {}) =>
  refusalOf(() => verify(envelope, options));

describe('a sound cancel', () => {
  test('is accepted with what was signed and who signed it', () => {
    const envelope = signCancel(payloadOf(), [fleet.operator]);
    expect(verify(envelope)).toEqual({
      payload: payloadOf(),
      digest: expect.stringMatching(/^[0-9a-f]{64}$/),
      envelope,
      keyids: [fleet.operator.keyid],
      mayCancelAny: false,
    });
  });

  test('is the same cancel parsed or raw', () => {
    const envelope = signed(payloadOf());
    expect(verify(utf8(JSON.stringify(envelope)))).toEqual(verify(envelope));
  });

  test('passes at a party that only routes, whatever the node', () => {
    const elsewhere = signed(payloadOf({ aud: { nodes: [OTHER_NODE] } }));
    const { authority } = fleet;
    const routed = verifyCancel(nodeVerifier, { envelope: elsewhere, authority, nowSeconds: NOW });
    expect(routed.payload.aud.nodes).toEqual([OTHER_NODE]);
  });

  test('that was accepted once is no longer asked for its times', () => {
    const envelope = signed(payloadOf({ exp: NOW + 1 }));
    expect(refused(envelope, { nowSeconds: NOW + 1 }).code).toBe('E_EXPIRED');
    const { authority } = fleet;
    expect(verifyCancel(nodeVerifier, { envelope, authority }).payload.target).toBe(TARGET);
  });

  test('by a signer who has seen updates that the receiver has not is accepted', () => {
    const ahead = { seq: fleet.authority.seq + 5, head: 'f'.repeat(64) };
    expect(refused(signed(payloadOf({ authority: ahead }))).code).toBe('none');
  });
});

describe('reading', () => {
  test('over the size of a submission is E_SIZE', () => {
    expect(refused(new Uint8Array(LIMITS.submissionBytesMax + 1)).code).toBe('E_SIZE');
  });

  test.for([
    ['no JSON', utf8('{')],
    ['an unknown member', utf8(JSON.stringify({ ...signed(payloadOf()), extra: 1 }))],
  ] as const)('%s is E_ENVELOPE', ([, bytes]) => {
    expect(refused(bytes).code).toBe('E_ENVELOPE');
  });

  test('a script is E_PAYLOAD_TYPE, and so is a cancel under another type', () => {
    expect(refused(scriptOf(fleet)).code).toBe('E_PAYLOAD_TYPE');
    const { payloadType } = scriptOf(fleet);
    expect(refused({ ...signed(payloadOf()), payloadType }).code).toBe('E_PAYLOAD_TYPE');
    expect(refused({ ...scriptOf(fleet), payloadType: signed({}).payloadType }).code).toBe(
      'E_SIG_INVALID',
    );
  });

  test('without a signature is E_SIG_FORMAT', () => {
    expect(refused({ ...signed(payloadOf()), signatures: [] }).code).toBe('E_SIG_FORMAT');
  });
});

describe('keys and signatures', () => {
  test('a key that was never granted anything is E_UNKNOWN_KEY', () => {
    const envelope = signed(payloadOf(), fleet.operator, keyOf('stranger'));
    expect(refused(envelope)).toEqual({ code: 'E_UNKNOWN_KEY', path: 'signatures.1.keyid' });
  });

  test('a revoked key is E_KEY_REVOKED, also without times', () => {
    const revoke = { type: 'revoke', keyid: fleet.operator.keyid, reason: 'lost' } as const;
    const authority = change(fleet.authority, revoke, [fleet.admin]);
    const envelope = signed(payloadOf());
    expect(refused(envelope, { authority }).code).toBe('E_KEY_REVOKED');
    expect(refusalOf(() => verifyCancel(nodeVerifier, { envelope, authority })).code).toBe(
      'E_KEY_REVOKED',
    );
  });

  test('a key before or after its time is E_KEY_EXPIRED', () => {
    for (const grant of [{ notBefore: NOW + 2 }, { notAfter: NOW }]) {
      const { authority } = createFleet(grant);
      const envelope = signed(
        payloadOf({ authority: { seq: authority.seq, head: authority.head } }),
      );
      expect(refused(envelope, { authority }).code).toBe('E_KEY_EXPIRED');
    }
  });

  test('a small-order key that got into a record is E_WEAK_KEY', () => {
    const publicKey = new Uint8Array(32);
    const keyid = keyIdOf(nodeVerifier, publicKey);
    const record = fleet.authority.findKey(fleet.operator.keyid);
    // No authority would grant it; this one is made to know it.
    const authority: Authority = Object.create(fleet.authority, {
      findKey: { value: () => ({ ...record, keyid, publicKey }) },
    });
    const envelope = signed(payloadOf(), { ...fleet.operator, keyid });
    expect(refused(envelope, { authority }).code).toBe('E_WEAK_KEY');
  });

  test('S + L is E_SIG_MALLEABLE', () => {
    const envelope = signed(payloadOf());
    const sig = fromBase64(envelope.signatures[0]?.sig ?? '');
    let s = 2n ** 252n + 27742317777372353535851937790883648493n;
    for (let i = 0; i < 32; i++) s += BigInt(sig[32 + i] ?? 0) << BigInt(8 * i);
    for (let i = 0; i < 32; i++) sig[32 + i] = Number((s >> BigInt(8 * i)) & 0xffn);
    const signatures = [{ keyid: fleet.operator.keyid, sig: base64(sig) }];
    expect(refused({ ...envelope, signatures }).code).toBe('E_SIG_MALLEABLE');
  });

  test('any changed byte of the payload is E_SIG_INVALID', () => {
    const envelope = signed(payloadOf());
    const payload = fromBase64(envelope.payload);
    for (let at = 0; at < payload.length; at += 31) {
      const changed = payload.slice();
      changed[at] = (changed[at] ?? 0) ^ 1;
      expect(refused({ ...envelope, payload: base64(changed) }).code).toBe('E_SIG_INVALID');
    }
  });
});

describe('the payload', () => {
  test.for([
    ['an unknown member', { extra: 1 }, 'extra'],
    ['another version', { v: 2 }, 'v'],
    ['a realm with a slash', { realm: 'a/b' }, 'realm'],
    ['no node', { aud: { nodes: [] } }, 'aud.nodes'],
    ['a node twice', { aud: { nodes: [OTHER_NODE, OTHER_NODE] } }, 'aud.nodes'],
    ['a target that is no digest', { target: 'run_1' }, 'target'],
    ['iat after exp', { iat: NOW + 2, exp: NOW + 1 }, 'iat'],
    ['a short nonce', { nonce: 'abc' }, 'nonce'],
  ] as const)('with %s is E_PAYLOAD', ([, changes, path]) => {
    expect(refused(signed({ ...payloadOf(), ...changes }))).toEqual({ code: 'E_PAYLOAD', path });
  });
});

/** Each of these is wrong in its own way, and in every way that is checked after it. */
describe('one code a check, in their order', () => {
  const scope = { realm: 'other' };
  const fork = { ...scope, authority: { seq: 1, head: 'f'.repeat(64) } };
  const lifetime = { ...fork, exp: NOW + LIMITS.lifetimeSecondsMax + 1 };
  const expired = { ...lifetime, iat: NOW - LIMITS.lifetimeSecondsMax, exp: NOW + 1 };
  const notYet = { ...lifetime, iat: NOW + LIMITS.skewSeconds + 2 };
  const audience = { ...notYet, aud: { nodes: [OTHER_NODE] } };
  test.for([
    ['E_AUDIENCE', audience, 'aud.nodes'],
    ['E_NOT_YET', notYet, 'iat'],
    ['E_EXPIRED', expired, 'exp'],
    ['E_LIFETIME', lifetime, 'exp'],
    ['E_LOG_FORK', fork, 'authority.head'],
    ['E_SCOPE', scope, 'signatures'],
  ] as const)('%s', ([code, changes, path]) => {
    expect(refused(signed(payloadOf(changes)))).toEqual({ code, path });
  });

  test('the edges: iat within the skew, the last second, the longest life', () => {
    const iat = NOW + 1 + LIMITS.skewSeconds;
    expect(refused(signed(payloadOf({ iat, exp: iat }))).code).toBe('none');
    expect(refused(signed(payloadOf({ exp: NOW + 2 }))).code).toBe('none');
    const exp = NOW + LIMITS.lifetimeSecondsMax;
    expect(refused(signed(payloadOf({ exp }))).code).toBe('none');
  });
});

describe('scope', () => {
  test.for<[string, Partial<Grant>]>([
    ['a viewer', { role: 'viewer' }],
    ['a coordinator', { role: 'coordinator' }],
    ['an operator of other nodes', { nodes: [OTHER_NODE] }],
    ['an operator of other realms', { realms: ['other'] }],
  ])('%s is E_SCOPE', ([, scope]) => {
    const signer = keyOf('other');
    const grant = grantOf(signer, scope);
    const authority = change(fleet.authority, { type: 'grant', grant }, [fleet.root]);
    expect(refused(signed(payloadOf(), signer), { authority }).code).toBe('E_SCOPE');
  });

  test('every node of it has to be in the scope of one signer', () => {
    const { authority } = createFleet({ nodes: [fleet.nodeId] });
    const seen = { seq: 0, head: authority.hashAt(0) ?? '' };
    const both = payloadOf({ authority: seen, aud: { nodes: [fleet.nodeId, OTHER_NODE] } });
    expect(refused(signed(both), { authority }).code).toBe('E_SCOPE');
    expect(refused(signed(payloadOf({ authority: seen })), { authority }).code).toBe('none');
  });
});

describe('who may cancel what', () => {
  const target = { realm: 'default', keyids: [fleet.operator.keyid] };
  const other = keyOf('other');
  function cancelBy(
    signer: Signer,
    caps: readonly string[],
    realms: readonly string[] = ['default'],
  ) {
    const grant = grantOf(signer, { name: 'otto', caps: [...caps], realms: [...realms] });
    const authority = change(fleet.authority, { type: 'grant', grant }, [fleet.root]);
    return verify(signed(payloadOf(), signer), { authority });
  }

  test('who signed the target may', () => {
    expect(() => assertMayCancel(verify(signed(payloadOf())), target)).not.toThrow();
  });

  test('another operator may not', () => {
    const cancel = cancelBy(other, ['volume', 'container']);
    expect(cancel.mayCancelAny).toBe(false);
    expect(refusalOf(() => assertMayCancel(cancel, target))).toEqual({
      code: 'E_SCOPE',
      path: 'target',
    });
  });

  test.for([[['cancel']], [['*']]])('another operator granted %j may', ([caps = []]) => {
    const cancel = cancelBy(other, caps);
    expect(cancel.mayCancelAny).toBe(true);
    expect(() => assertMayCancel(cancel, target)).not.toThrow();
  });

  test('an admin may, who could not have signed the script', () => {
    const cancel = verify(signed(payloadOf(), fleet.admin));
    expect(cancel.mayCancelAny).toBe(true);
    expect(() => assertMayCancel(cancel, target)).not.toThrow();
  });

  test('power over another realm does not help a second signer', () => {
    const grant = grantOf(other, { caps: ['cancel'], realms: ['other'] });
    const authority = change(fleet.authority, { type: 'grant', grant }, [fleet.root]);
    const { operator } = fleet;
    const cancel = verify(signed(payloadOf(), operator, other), { authority });
    expect(cancel.mayCancelAny).toBe(false);
    expect(cancel.keyids).toEqual([operator.keyid, other.keyid]);
  });

  test('nobody may from another realm, not even who signed it', () => {
    const cancel = verify(signed(payloadOf(), fleet.admin));
    const elsewhere = { realm: 'other', keyids: [fleet.admin.keyid] };
    expect(refusalOf(() => assertMayCancel(cancel, elsewhere))).toEqual({
      code: 'E_SCOPE',
      path: 'realm',
    });
  });
});
