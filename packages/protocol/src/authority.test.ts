import { describe, expect, test } from 'vitest';
import { change, createFleet, grantOf, keyOf, NOW, refusalOf, updateOf } from '../test/fleet.ts';
import {
  Authority,
  type AuthorityChange,
  base64,
  buildAuthorityPayload,
  buildGenesisPayload,
  canonicalBytes,
  type Grant,
  isHyphaError,
  type Signer,
  signAuthority,
  signEnvelope,
} from './index.ts';
import { nodeVerifier } from './node/index.ts';

const NODE = `node_${'a'.repeat(32)}`;
const [r1, r2, r3, stranger] = [keyOf('r1'), keyOf('r2'), keyOf('r3'), keyOf('stranger')];

function genesisOf(keys: readonly Signer[], threshold: number, signers = keys) {
  const rootKeys = keys.map(({ publicKey }, index) => ({ publicKey, name: `root-${index}` }));
  return signAuthority(buildGenesisPayload({ rootKeys, threshold, nowSeconds: NOW }), signers);
}

describe('genesis', () => {
  test('signed by its threshold is the first state', () => {
    const authority = Authority.fromGenesis(nodeVerifier, genesisOf([r1, r2, r3], 2, [r1, r3]));
    expect(authority).toMatchObject({ seq: 0, threshold: 2 });
    expect(authority.head).toBe(authority.genesisHash);
    expect(authority.rootKeyIds).toEqual([r1.keyid, r2.keyid, r3.keyid]);
  });

  test.for([
    ['one signature short', genesisOf([r1, r2], 2, [r1]), 'E_AUTHORITY'],
    ['a threshold nobody can reach', genesisOf([r1], 2), 'E_AUTHORITY'],
    ['the same root key twice', genesisOf([r1, r1], 1, [r1]), 'E_AUTHORITY'],
    ['a signature by a key it does not name', genesisOf([r1], 1, [r1, stranger]), 'E_UNKNOWN_KEY'],
  ] as const)('%s is refused', ([, genesis, code]) => {
    expect(refusalOf(() => Authority.fromGenesis(nodeVerifier, genesis)).code).toBe(code);
  });

  test('with a small-order root key is refused', () => {
    const weak = { ...r1, publicKey: new Uint8Array(32) };
    const genesis = genesisOf([r1, weak], 1, [r1]);
    expect(refusalOf(() => Authority.fromGenesis(nodeVerifier, genesis))).toEqual({
      code: 'E_WEAK_KEY',
      path: 'change.rootKeys.1.publicKey',
    });
  });

  test('other than the pinned one is refused', () => {
    const genesis = genesisOf([r1], 1);
    const { genesisHash } = Authority.fromGenesis(nodeVerifier, genesis);
    expect(Authority.fromGenesis(nodeVerifier, genesis, genesisHash).head).toBe(genesisHash);
    const other = genesisOf([r2], 1);
    expect(refusalOf(() => Authority.fromGenesis(nodeVerifier, other, genesisHash)).code).toBe(
      'E_AUTHORITY',
    );
  });

  test('cannot come again later in the chain', () => {
    const fleet = createFleet();
    const again: AuthorityChange = {
      type: 'genesis',
      rootKeys: [{ publicKey: base64(stranger.publicKey), name: 'evil' }],
      threshold: 1,
    };
    expect(refusalOf(() => change(fleet.authority, again, [fleet.root]))).toEqual({
      code: 'E_AUTHORITY',
      path: 'change.type',
    });
  });
});

describe('the chain', () => {
  const fleet = createFleet();
  const next = (name: string) =>
    updateOf(fleet.authority, { type: 'grant', grant: grantOf(keyOf(name), { name }) }, [
      fleet.root,
    ]);

  test('replays to the same head from its updates', () => {
    const { authority } = fleet;
    const again = Authority.replay(nodeVerifier, authority.updates, authority.genesisHash);
    expect(again.head).toBe(authority.head);
    expect(again.listKeys()).toEqual(authority.listKeys());
  });

  test('skips what it already contains and appends the rest', () => {
    const extended = fleet.authority.extend([...fleet.authority.updates, next('bob'), next('bob')]);
    expect(extended.seq).toBe(fleet.authority.seq + 1);
    expect(extended.findKey(keyOf('bob').keyid)?.grant.name).toBe('bob');
    expect(fleet.authority.findKey(keyOf('bob').keyid)).toBeUndefined();
  });

  test('is the same object when nothing is new', () => {
    expect(fleet.authority.extend(fleet.authority.updates)).toBe(fleet.authority);
  });

  test('refuses another update at a seq that is taken, naming both', () => {
    const ours = fleet.authority.apply(next('bob'));
    let caught: unknown;
    try {
      ours.extend([next('eve')]);
    } catch (error) {
      caught = error;
    }
    expect(isHyphaError(caught, 'E_AUTHORITY') && caught.details).toMatchObject({
      reason: 'fork',
      seq: ours.seq,
      ours: { seq: ours.seq, head: ours.head },
    });
  });

  test('refuses an update whose prev is not our head', () => {
    const base = { seq: fleet.authority.seq, head: '0'.repeat(64) };
    const update = updateOf(base, { type: 'revoke-node', node: NODE, reason: '' }, [fleet.root]);
    expect(refusalOf(() => fleet.authority.apply(update))).toEqual({
      code: 'E_AUTHORITY',
      path: 'prev',
    });
  });

  test('says a gap is a gap', () => {
    const base = { seq: fleet.authority.seq + 3, head: '0'.repeat(64) };
    const update = updateOf(base, { type: 'revoke-node', node: NODE, reason: '' }, [fleet.root]);
    let caught: unknown;
    try {
      fleet.authority.apply(update);
    } catch (error) {
      caught = error;
    }
    expect(isHyphaError(caught, 'E_AUTHORITY') && caught.details).toMatchObject({ reason: 'gap' });
  });

  test('takes all of a batch or none', () => {
    const forged = updateOf(fleet.authority, { type: 'revoke-node', node: NODE, reason: '' }, [
      stranger,
    ]);
    expect(refusalOf(() => fleet.authority.extend([next('bob'), forged])).code).toBe(
      'E_UNKNOWN_KEY',
    );
    expect(fleet.authority.seq).toBe(2);
  });

  test('refuses an update with one byte changed', () => {
    const update = next('bob');
    const payload = update.payload.replace(/^.{40}./, (text) =>
      text.endsWith('A') ? `${text.slice(0, -1)}B` : `${text.slice(0, -1)}A`,
    );
    expect(refusalOf(() => fleet.authority.apply({ ...update, payload })).code).toBe(
      'E_SIG_INVALID',
    );
  });

  test('can be looked at as it was', () => {
    const later = change(
      fleet.authority,
      { type: 'revoke', keyid: fleet.operator.keyid, reason: 'left' },
      [fleet.admin],
    );
    expect(later.findKey(fleet.operator.keyid)).toMatchObject({
      status: 'revoked',
      revokedAtSeq: 3,
    });
    expect(later.at(2).findKey(fleet.operator.keyid)?.status).toBe('active');
    expect(refusalOf(() => later.at(9)).code).toBe('E_STALE_VIEW');
  });
});

describe('root keys', () => {
  const authority = Authority.fromGenesis(nodeVerifier, genesisOf([r1, r2, r3], 2));
  const admin: AuthorityChange = {
    type: 'grant',
    grant: grantOf(keyOf('admin'), { role: 'admin', name: 'ada' }),
  };

  test('change anything at their threshold', () => {
    expect(change(authority, admin, [r1, r3]).findKey(keyOf('admin').keyid)?.status).toBe('active');
  });

  test('change nothing below it', () => {
    expect(refusalOf(() => change(authority, admin, [r1]))).toEqual({
      code: 'E_AUTHORITY',
      path: 'signatures',
    });
  });

  test('do not count twice', () => {
    const update = updateOf(authority, admin, [r1, r1]);
    expect(refusalOf(() => authority.apply(update)).code).toBe('E_SIG_FORMAT');
    const [first] = update.signatures;
    if (first === undefined) throw new Error('no signature');
    const renamed = { ...update, signatures: [first, { ...first, keyid: r2.keyid }] };
    expect(refusalOf(() => authority.apply(renamed)).code).toBe('E_SIG_INVALID');
  });

  test('cannot be granted another role', () => {
    const grant = grantOf(r3);
    expect(refusalOf(() => change(authority, { type: 'grant', grant }, [r1, r2]))).toEqual({
      code: 'E_AUTHORITY',
      path: 'change.grant.publicKey',
    });
  });
});

describe('an admin', () => {
  const bounds: Partial<Grant> = {
    name: 'ada',
    role: 'admin',
    realms: ['default', 'lab'],
    caps: ['volume', 'container'],
    nodes: [NODE],
    limits: {
      cpuMs: 1000,
      wallMs: 1000,
      memoryBytes: 2 ** 26,
      hostCalls: 10,
      outputBytes: 10,
      resources: { milliCpus: 10, memoryBytes: 10, storageBytes: 10 },
    },
    notBefore: NOW - 3600,
    notAfter: NOW + 3600,
  };
  const { limits } = grantOf(stranger, bounds);
  const within: Partial<Grant> = { ...bounds, role: 'operator', name: 'bob', realms: ['lab'] };
  const root = keyOf('root');
  const admin = keyOf('admin');
  const base = (() => {
    const genesis = Authority.fromGenesis(nodeVerifier, genesisOf([root], 1));
    const granted = change(genesis, { type: 'grant', grant: grantOf(admin, bounds) }, [root]);
    return change(
      granted,
      { type: 'grant', grant: grantOf(keyOf('peer'), { ...bounds, name: 'peer' }) },
      [root],
    );
  })();
  const grant = (overrides: Partial<Grant>, key = keyOf('bob')): AuthorityChange => ({
    type: 'grant',
    grant: grantOf(key, { ...within, ...overrides }),
  });
  const asAdmin = (made: AuthorityChange, authority = base) => change(authority, made, [admin]);

  test('grants operators and viewers inside its bounds', () => {
    expect(asAdmin(grant({})).findKey(keyOf('bob').keyid)?.grant.role).toBe('operator');
    expect(asAdmin(grant({ role: 'viewer' })).seq).toBe(base.seq + 1);
  });

  test.for([
    ['an admin', { role: 'admin' }],
    ['a coordinator', { role: 'coordinator' }],
    ['a ledger', { role: 'ledger' }],
    ['a realm it has not', { realms: ['lab', 'prod'] }],
    ['all realms', { realms: ['*'] }],
    ['a capability it has not', { caps: ['network'] }],
    ['all capabilities', { caps: ['*'] }],
    ['a node it has not', { nodes: [`node_${'b'.repeat(32)}`] }],
    ['all nodes', { nodes: ['*'] }],
    ['no limits', { limits: null }],
    ['a higher limit', { limits: limits && { ...limits, cpuMs: 1001 } }],
    [
      'a higher resource limit',
      { limits: limits && { ...limits, resources: { ...limits.resources, memoryBytes: 11 } } },
    ],
    ['an earlier start', { notBefore: NOW - 3601 }],
    ['a later end', { notAfter: NOW + 3601 }],
  ] as const)('does not grant %s', ([, overrides]) => {
    expect(refusalOf(() => asAdmin(grant(overrides as Partial<Grant>)))).toEqual({
      code: 'E_SCOPE',
      path: 'change',
    });
  });

  test('changes and revokes what it could have granted', () => {
    const granted = asAdmin(grant({}));
    expect(
      asAdmin(grant({ realms: ['default'] }), granted).findKey(keyOf('bob').keyid)?.grant.realms,
    ).toEqual(['default']);
    const revoked = asAdmin({ type: 'revoke', keyid: keyOf('bob').keyid, reason: 'left' }, granted);
    expect(revoked.findKey(keyOf('bob').keyid)?.status).toBe('revoked');
  });

  test('neither narrows nor revokes a grant that reaches beyond its own', () => {
    const wide = change(base, grant({ realms: ['*'] }), [root]);
    expect(refusalOf(() => asAdmin(grant({}), wide)).code).toBe('E_SCOPE');
    const revoke: AuthorityChange = { type: 'revoke', keyid: keyOf('bob').keyid, reason: '' };
    expect(refusalOf(() => asAdmin(revoke, wide)).code).toBe('E_SCOPE');
  });

  test('never revokes another admin', () => {
    const revoke: AuthorityChange = { type: 'revoke', keyid: keyOf('peer').keyid, reason: '' };
    expect(refusalOf(() => asAdmin(revoke)).code).toBe('E_SCOPE');
  });

  test('revokes a node it may act on and no other', () => {
    const revokeNode = (node: string): AuthorityChange => ({
      type: 'revoke-node',
      node,
      reason: '',
    });
    const revoked = asAdmin(revokeNode(NODE));
    expect(revoked.isNodeRevoked(NODE)).toBe(true);
    expect(refusalOf(() => asAdmin(revokeNode(`node_${'b'.repeat(32)}`))).code).toBe('E_SCOPE');
    expect(refusalOf(() => asAdmin(revokeNode(NODE), revoked)).code).toBe('E_AUTHORITY');
  });

  test('cannot turn its own key into something else', () => {
    expect(refusalOf(() => asAdmin(grant({}, admin))).code).toBe('E_SCOPE');
    expect(refusalOf(() => change(base, grant({}, admin), [root]))).toEqual({
      code: 'E_AUTHORITY',
      path: 'change.grant.role',
    });
  });

  test('signs nothing after it was revoked', () => {
    const revoked = change(base, { type: 'revoke', keyid: admin.keyid, reason: '' }, [root]);
    expect(refusalOf(() => asAdmin(grant({}), revoked)).code).toBe('E_KEY_REVOKED');
  });

  test('signs nothing outside its validity, by the date in the update', () => {
    const late = updateOf(base, grant({}), [admin], NOW + 3601);
    expect(refusalOf(() => base.apply(late)).code).toBe('E_KEY_EXPIRED');
  });

  test('cannot date an update back once whoever accepts it looks at the clock', () => {
    const backdated = updateOf(base, grant({}), [admin], NOW);
    expect(base.apply(backdated, { nowSeconds: NOW + 60 }).seq).toBe(base.seq + 1);
    const refusal = refusalOf(() => base.apply(backdated, { nowSeconds: NOW + 3601 }));
    expect(refusal.code).toBe('E_KEY_EXPIRED');
  });

  test('cannot date an update ahead of the clock by more than the skew', () => {
    const ahead = updateOf(base, grant({}), [admin], NOW + 61);
    expect(refusalOf(() => base.apply(ahead, { nowSeconds: NOW })).code).toBe('E_NOT_YET');
    expect(base.apply(ahead, { nowSeconds: NOW + 1 }).seq).toBe(base.seq + 1);
  });
});

describe('any key', () => {
  const fleet = createFleet();
  const { authority, operator, admin, root } = fleet;
  const revokeOperator: AuthorityChange = {
    type: 'revoke',
    keyid: operator.keyid,
    reason: 'stolen',
  };

  test('revokes itself', () => {
    expect(change(authority, revokeOperator, [operator]).findKey(operator.keyid)?.status).toBe(
      'revoked',
    );
    const self: AuthorityChange = { type: 'revoke', keyid: admin.keyid, reason: '' };
    expect(change(authority, self, [admin]).findKey(admin.keyid)?.status).toBe('revoked');
  });

  test('revokes itself even after it expired', () => {
    const update = updateOf(authority, revokeOperator, [operator], NOW + 10 * 86_400);
    expect(authority.apply(update, { nowSeconds: NOW + 10 * 86_400 }).seq).toBe(authority.seq + 1);
  });

  test('of an operator changes nothing else', () => {
    const grant: AuthorityChange = { type: 'grant', grant: grantOf(stranger) };
    expect(refusalOf(() => change(authority, grant, [operator])).code).toBe('E_AUTHORITY');
    const other: AuthorityChange = { type: 'revoke', keyid: admin.keyid, reason: '' };
    expect(refusalOf(() => change(authority, other, [operator])).code).toBe('E_AUTHORITY');
  });

  test('stays revoked', () => {
    const revoked = change(authority, revokeOperator, [root]);
    expect(refusalOf(() => change(revoked, revokeOperator, [root])).code).toBe('E_AUTHORITY');
    const grant: AuthorityChange = { type: 'grant', grant: grantOf(operator) };
    expect(refusalOf(() => change(revoked, grant, [root])).code).toBe('E_KEY_REVOKED');
  });

  test('that was never granted anything cannot be revoked', () => {
    const revoke: AuthorityChange = { type: 'revoke', keyid: stranger.keyid, reason: '' };
    expect(refusalOf(() => change(authority, revoke, [root]))).toEqual({
      code: 'E_AUTHORITY',
      path: 'change.keyid',
    });
  });

  test('is granted nothing when it is weak or its window is empty', () => {
    const weak = { ...stranger, publicKey: new Uint8Array(32) };
    const weakGrant: AuthorityChange = { type: 'grant', grant: grantOf(weak) };
    expect(refusalOf(() => change(authority, weakGrant, [root])).code).toBe('E_WEAK_KEY');
    const empty = grantOf(stranger, { notBefore: NOW, notAfter: NOW - 1 });
    expect(refusalOf(() => change(authority, { type: 'grant', grant: empty }, [root]))).toEqual({
      code: 'E_AUTHORITY',
      path: 'change.grant.notBefore',
    });
  });
});

test('an update with a member this version does not know is refused', () => {
  const { authority, root } = createFleet();
  const payload = buildAuthorityPayload(
    authority,
    { type: 'revoke-node', node: NODE, reason: '' },
    NOW,
  );
  const bytes = canonicalBytes({ ...payload, extra: 1 });
  const update = signEnvelope('authority', bytes, [root]);
  expect(refusalOf(() => authority.apply(update))).toEqual({ code: 'E_PAYLOAD', path: 'extra' });
});
