import { describe, expect, test } from 'vitest';
import { change, createFleet, grantOf, keyOf, NOW, payloadOf, scriptOf } from '../test/fleet.ts';
import { fleet, refused, verify } from '../test/verify.ts';
import { base64, fromBase64, type Grant, type ReplayMemory, RunLimits } from './index.ts';

describe('the audience', () => {
  test('without this node is E_AUDIENCE, in both profiles', () => {
    const node = { id: `node_${'b'.repeat(32)}`, realms: ['*'] };
    for (const profile of ['admit', 'execute'] as const)
      expect(refused(scriptOf(fleet), { node, profile })).toEqual({
        code: 'E_AUDIENCE',
        path: 'aud.nodes',
      });
  });

  test('in a realm the node does not serve is E_AUDIENCE', () => {
    const node = { id: fleet.nodeId, realms: ['lab'] };
    expect(refused(scriptOf(fleet), { node })).toEqual({ code: 'E_AUDIENCE', path: 'realm' });
    expect(refused(scriptOf(fleet), { node: { ...node, realms: ['*'] } }).code).toBe('none');
  });

  test('of a revoked node is E_AUDIENCE', () => {
    const revoke = { type: 'revoke-node', node: fleet.nodeId, reason: '' } as const;
    const authority = change(fleet.authority, revoke, [fleet.admin]);
    expect(refused(scriptOf(fleet), { authority }).code).toBe('E_AUDIENCE');
  });
});

describe('time', () => {
  const envelope = scriptOf(fleet);
  const dated = (dates: Partial<Record<'iat' | 'nbf' | 'exp', number>>) =>
    scriptOf(fleet, { payload: dates });

  test('a minute of skew is allowed at nbf and iat, and a second more is E_NOT_YET', () => {
    expect(refused(dated({ nbf: NOW + 60 }), { nowSeconds: NOW }).code).toBe('none');
    expect(refused(dated({ nbf: NOW + 61 }), { nowSeconds: NOW })).toEqual({
      code: 'E_NOT_YET',
      path: 'nbf',
    });
    expect(refused(dated({ iat: NOW + 61 }), { nowSeconds: NOW })).toEqual({
      code: 'E_NOT_YET',
      path: 'iat',
    });
  });

  test('none is allowed at exp', () => {
    expect(refused(envelope, { nowSeconds: NOW + 899 }).code).toBe('none');
    expect(refused(envelope, { nowSeconds: NOW + 900 })).toEqual({
      code: 'E_EXPIRED',
      path: 'exp',
    });
  });

  test('a day of validity is allowed, and a second more is E_LIFETIME', () => {
    expect(refused(dated({ exp: NOW + 86_400 })).code).toBe('none');
    expect(refused(dated({ exp: NOW + 86_401 }))).toEqual({ code: 'E_LIFETIME', path: 'exp' });
    expect(refused(dated({ nbf: NOW + 30, exp: NOW + 86_430 })).code).toBe('none');
  });

  test('means nothing to what was admitted and is executed', () => {
    for (const late of [NOW - 86_400, NOW + 86_400 * 365])
      expect(refused(envelope, { profile: 'execute', nowSeconds: late }).code).toBe('none');
  });
});

describe('the view of the authority', () => {
  const newer = change(
    fleet.authority,
    { type: 'revoke-node', node: `node_${'c'.repeat(32)}`, reason: '' },
    [fleet.admin],
  );

  test('that is older than the signer’s is E_STALE_VIEW and worth a retry', () => {
    const envelope = scriptOf(fleet, { draft: { authority: newer } });
    expect(refused(envelope)).toEqual({ code: 'E_STALE_VIEW', path: 'authority.seq' });
    expect(refused(envelope, { authority: newer }).code).toBe('none');
    expect(refused(envelope, { profile: 'execute' }).code).toBe('none');
  });

  test('that is newer than the signer’s is fine', () => {
    expect(refused(scriptOf(fleet), { authority: newer }).code).toBe('none');
  });

  test('that branched off the signer’s is E_LOG_FORK', () => {
    const envelope = scriptOf(fleet, { draft: { authority: { seq: 1, head: '0'.repeat(64) } } });
    expect(refused(envelope)).toEqual({ code: 'E_LOG_FORK', path: 'authority.head' });
  });
});

describe('the scope', () => {
  const limits = RunLimits.parse({});
  const withGrant = (grant: Partial<Grant>, options: Parameters<typeof scriptOf>[1] = {}) => {
    const { authority } = createFleet(grant);
    const envelope = scriptOf({ ...fleet, authority }, options);
    return (['admit', 'execute'] as const).map((profile) =>
      refused(envelope, { authority, profile }),
    );
  };

  test.for([
    ['a realm', { realms: ['lab'] }, {}, 'realm'],
    ['a capability', { caps: ['volume'] }, { draft: { caps: ['volume', 'network'] } }, 'caps.1'],
    ['a node', { nodes: [`node_${'b'.repeat(32)}`] }, {}, 'aud.nodes.0'],
    ['a run limit', { limits: { ...limits, cpuMs: 1999 } }, {}, 'limits.cpuMs'],
    [
      'a resource limit',
      { limits: { ...limits, resources: { ...limits.resources, storageBytes: 1 } } },
      {},
      'limits.resources.storageBytes',
    ],
    ['the role of a viewer', { role: 'viewer' }, {}, 'signatures'],
    ['the role of an admin', { role: 'admin' }, {}, 'signatures'],
  ] as const)('without %s is E_SCOPE, in both profiles', ([, grant, options, path]) => {
    const expected = { code: 'E_SCOPE', path };
    expect(withGrant(grant as Partial<Grant>, options as never)).toEqual([expected, expected]);
  });

  test('exactly as wide as what is asked is enough', () => {
    const grant = { realms: ['default'], caps: ['volume'], nodes: [fleet.nodeId], limits };
    expect(withGrant(grant)).toEqual([
      { code: 'none', path: undefined },
      { code: 'none', path: undefined },
    ]);
  });

  test('of two signers does not add up', () => {
    const second = keyOf('second');
    const base = createFleet({ caps: ['volume'] });
    const grant = grantOf(second, { name: 'second', caps: ['network'] });
    const authority = change(base.authority, { type: 'grant', grant }, [base.root]);
    const both = scriptOf(
      { ...base, authority },
      {
        draft: { caps: ['volume', 'network'] },
        signers: [base.operator, second],
      },
    );
    expect(refused(both, { authority })).toEqual({ code: 'E_SCOPE', path: 'caps.1' });
  });

  test('of one of two signers is enough', () => {
    const envelope = scriptOf(fleet, { signers: [fleet.admin, fleet.operator] });
    expect(refused(envelope).code).toBe('none');
  });
});

describe('replay', () => {
  const first = scriptOf(fleet);
  const { id, nonce } = payloadOf(fleet);
  const accepted = verify(first).digest;
  const replay: ReplayMemory = {
    hasDigest: (digest) => digest === accepted,
    findId: (used) => (used === id ? accepted : undefined),
    findNonce: (keyid, used) =>
      keyid === fleet.operator.keyid && used === nonce ? accepted : undefined,
  };

  test('the same envelope again is existing, also after exp and with a view that is behind', () => {
    expect(verify(first, { replay }).existing).toBe(true);
    expect(verify(first, { replay, nowSeconds: NOW + 86_400 * 30 }).existing).toBe(true);
  });

  test('the same payload signed again by another key is the same work', () => {
    const second = keyOf('second');
    const grant = grantOf(second, { name: 'second' });
    const authority = change(fleet.authority, { type: 'grant', grant }, [fleet.root]);
    const again = scriptOf(fleet, { signers: [second] });
    expect(verify(again, { authority, replay }).existing).toBe(true);
  });

  test('the same id in another envelope is E_REPLAY', () => {
    const other = scriptOf(fleet, { seed: 'other', payload: { id } });
    expect(refused(other, { replay })).toEqual({ code: 'E_REPLAY', path: 'id' });
  });

  test('the same nonce of the same key in another envelope is E_REPLAY', () => {
    const other = scriptOf(fleet, { seed: 'other', payload: { nonce } });
    expect(refused(other, { replay })).toEqual({ code: 'E_REPLAY', path: 'nonce' });
  });

  test('the same nonce of another key is a coincidence', () => {
    const second = keyOf('second');
    const grant = grantOf(second, { name: 'second' });
    const authority = change(fleet.authority, { type: 'grant', grant }, [fleet.root]);
    const other = scriptOf(fleet, { seed: 'other', payload: { nonce }, signers: [second] });
    expect(refused(other, { authority, replay }).code).toBe('none');
  });

  test('a fresh envelope is no replay', () => {
    expect(verify(scriptOf(fleet, { seed: 'fresh' }), { replay }).existing).toBe(false);
  });

  test('a known digest with a changed signature is not existing but E_SIG_INVALID', () => {
    const [signature = { keyid: '', sig: '' }] = first.signatures;
    const bytes = fromBase64(signature.sig);
    bytes[0] = (bytes[0] ?? 0) ^ 1;
    const forged = { ...first, signatures: [{ ...signature, sig: base64(bytes) }] };
    expect(refused(forged, { replay }).code).toBe('E_SIG_INVALID');
  });
});
