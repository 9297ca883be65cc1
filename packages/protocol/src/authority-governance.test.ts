import { describe, expect, test } from 'vitest';
import { change, createFleet, grantOf, keyOf, NOW, refusalOf, updateOf } from '../test/fleet.ts';
import {
  Authority,
  type AuthorityChange,
  base64,
  buildGenesisPayload,
  type Signer,
  signAuthority,
} from './index.ts';
import { nodeVerifier } from './node/index.ts';

const [r1, r2, r3] = [keyOf('r1'), keyOf('r2'), keyOf('r3')];
const [n1, n2, n3] = [keyOf('n1'), keyOf('n2'), keyOf('n3')];
const ledger = keyOf('ledger');
const rootKeysOf = (keys: readonly Signer[]) =>
  keys.map(({ publicKey }, index) => ({ publicKey: base64(publicKey), name: `root-${index}` }));

/** Two of three roots decide. */
const genesis = signAuthority(
  buildGenesisPayload({
    rootKeys: [r1, r2, r3].map(({ publicKey }, index) => ({ publicKey, name: `root-${index}` })),
    threshold: 2,
    nowSeconds: NOW - 3600,
  }),
  [r1, r2],
);
const start = Authority.fromGenesis(nodeVerifier, genesis);
const rotation: AuthorityChange = {
  type: 'rotate-root',
  rootKeys: rootKeysOf([n1, n2, n3]),
  threshold: 2,
};
const refusedChange = (
  made: AuthorityChange,
  signers: readonly Signer[],
  authority: Authority = start,
) => refusalOf(() => change(authority, made, signers));

describe('rotating the root', () => {
  test('takes effect when the old and the new threshold signed it', () => {
    const rotated = change(start, rotation, [r1, r3, n1, n2]);
    expect(rotated.rootKeyIds).toEqual([n1.keyid, n2.keyid, n3.keyid]);
    const policy = { type: 'set-policy', policy: start.policy } as const;
    expect(refusedChange(policy, [r1, r2], rotated).code).toBe('E_UNKNOWN_KEY');
    expect(change(rotated, policy, [n2, n3]).seq).toBe(2);
  });

  test.for([
    ['one old signature short', [r1, n1, n2], 'E_AUTHORITY'],
    ['one new signature short', [r1, r2, n1], 'E_AUTHORITY'],
    ['only new keys', [n1, n2, n3], 'E_AUTHORITY'],
    ['a key that is in neither set', [r1, r2, n1, n2, keyOf('eve')], 'E_UNKNOWN_KEY'],
  ] as const)('with %s is refused', ([, signers, code]) => {
    expect(refusedChange(rotation, signers).code).toBe(code);
  });

  test('may keep some of the old keys, which then count for both', () => {
    const kept: AuthorityChange = {
      type: 'rotate-root',
      rootKeys: rootKeysOf([r1, n1]),
      threshold: 2,
    };
    expect(change(start, kept, [r1, r2, n1]).rootKeyIds).toEqual([r1.keyid, n1.keyid]);
    expect(refusedChange(kept, [r1, r2]).code).toBe('E_AUTHORITY');
  });

  test('to a threshold nobody can reach is refused', () => {
    const unreachable: AuthorityChange = { ...rotation, threshold: 4 };
    expect(refusedChange(unreachable, [r1, r2, n1, n2, n3])).toEqual({
      code: 'E_AUTHORITY',
      path: 'change.threshold',
    });
  });

  test('to a key that has another role is refused: one key, one role', () => {
    const fleet = createFleet();
    const toAdmin: AuthorityChange = {
      type: 'rotate-root',
      rootKeys: rootKeysOf([fleet.admin]),
      threshold: 1,
    };
    expect(refusedChange(toAdmin, [fleet.root, fleet.admin], fleet.authority)).toEqual({
      code: 'E_AUTHORITY',
      path: 'change.rootKeys',
    });
  });

  test('by an admin is refused', () => {
    const fleet = createFleet();
    expect(refusedChange(rotation, [fleet.admin, n1, n2], fleet.authority).code).toBe('E_SCOPE');
  });

  test('replays from genesis alone', () => {
    const rotated = change(start, rotation, [r1, r2, n1, n2]);
    const grown = change(rotated, { type: 'set-policy', policy: rotated.policy }, [n1, n2]);
    const again = Authority.replay(nodeVerifier, grown.updates, start.genesisHash);
    expect(again.head).toBe(grown.head);
    expect(again.rootKeyIds).toEqual(grown.rootKeyIds);
    expect(again.at(0).rootKeyIds).toEqual(start.rootKeyIds);
  });
});

describe('the key of the ledger', () => {
  const set = (signer: Signer): AuthorityChange => ({
    type: 'set-ledger-key',
    publicKey: base64(signer.publicKey),
  });

  test('is the one the roots named last', () => {
    expect(start.ledgerKey).toBeUndefined();
    const first = change(start, set(ledger), [r1, r2]);
    expect(first.ledgerKey).toMatchObject({ keyid: ledger.keyid, setAtSeq: 1 });
    expect(change(first, set(n1), [r1, r2]).ledgerKey?.keyid).toBe(n1.keyid);
    expect(refusedChange(set(ledger), [r1, r2], first).code).toBe('E_AUTHORITY');
  });

  test('can be neither a root key nor one with a grant, in either order', () => {
    const fleet = createFleet();
    const { root, operator, authority } = fleet;
    expect(refusedChange(set(root), [root], authority).code).toBe('E_AUTHORITY');
    expect(refusedChange(set(operator), [root], authority).code).toBe('E_AUTHORITY');
    const named = change(authority, set(ledger), [root]);
    const grant: AuthorityChange = { type: 'grant', grant: grantOf(ledger) };
    expect(refusedChange(grant, [root], named)).toEqual({
      code: 'E_AUTHORITY',
      path: 'change.grant.publicKey',
    });
  });

  test('that is unsound is refused', () => {
    const weak: AuthorityChange = {
      type: 'set-ledger-key',
      publicKey: base64(new Uint8Array(32)),
    };
    expect(refusedChange(weak, [r1, r2])).toEqual({ code: 'E_WEAK_KEY', path: 'change.publicKey' });
  });

  test('is not for one root alone, nor for an admin', () => {
    expect(refusedChange(set(ledger), [r1]).code).toBe('E_AUTHORITY');
    const fleet = createFleet();
    expect(refusedChange(set(ledger), [fleet.admin], fleet.authority).code).toBe('E_SCOPE');
  });
});

describe('the policy', () => {
  test('is the default one until the roots set another', () => {
    expect(start.policy).toEqual({ checkpointMaxAge: 900, signatures: { default: 1, caps: {} } });
    const policy = { checkpointMaxAge: 86_400, signatures: { default: 2, caps: { exec: 3 } } };
    expect(change(start, { type: 'set-policy', policy }, [r1, r2]).policy).toEqual(policy);
  });

  test.for([59, 86_401])('cannot allow a checkpoint of %i s', (checkpointMaxAge) => {
    const policy = { ...start.policy, checkpointMaxAge };
    expect(refusalOf(() => updateOf(start, { type: 'set-policy', policy }, [r1, r2])).code).toBe(
      'E_PAYLOAD',
    );
  });
});
