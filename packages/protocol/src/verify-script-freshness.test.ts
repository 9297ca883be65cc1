import { describe, expect, test } from 'vitest';
import { change, grantOf, keyOf, NOW, scriptOf } from '../test/fleet.ts';
import { fleet, refused } from '../test/verify.ts';
import {
  type Authority,
  type Checkpoint,
  isHyphaError,
  type Policy,
  type ScriptTarget,
  verifyScript,
} from './index.ts';
import { nodeVerifier } from './node/index.ts';

/** As `verifyCheckpoint` gives it; what is signed there is not looked at again here. */
function checkpointOf(authority: Authority, overrides: Partial<Checkpoint> = {}): Checkpoint {
  return {
    origin: 'hypha/test',
    size: authority.seq + 1,
    root: '0'.repeat(64),
    authority: { seq: authority.seq, head: authority.head },
    time: NOW,
    note: 'a note',
    ...overrides,
  };
}

const withPolicy = (policy: Partial<Policy>) =>
  change(
    fleet.authority,
    { type: 'set-policy', policy: { ...fleet.authority.policy, ...policy } },
    [fleet.root],
  );

describe('the checkpoint', () => {
  const envelope = scriptOf(fleet);

  test('is not looked at where somebody else judges freshness', () => {
    expect(refused(envelope).code).toBe('none');
  });

  test('that nobody has is E_STALE_VIEW', () => {
    expect(refused(envelope, { checkpoint: null })).toEqual({
      code: 'E_STALE_VIEW',
      path: 'checkpoint',
    });
  });

  test('may be as old as the policy allows, and not a second more', () => {
    const { authority } = fleet;
    const aged = (age: number) => checkpointOf(authority, { time: NOW + 1 - age });
    expect(refused(envelope, { checkpoint: aged(900) }).code).toBe('none');
    expect(refused(envelope, { checkpoint: aged(901) }).code).toBe('E_STALE_VIEW');
    const patient = withPolicy({ checkpointMaxAge: 86_400 });
    const old = checkpointOf(patient, { time: NOW + 1 - 86_400 });
    expect(refused(envelope, { authority: patient, checkpoint: old }).code).toBe('none');
  });

  test('that names an update we lack is E_STALE_VIEW: a revocation may be in it', () => {
    const revoke = { type: 'revoke', keyid: fleet.operator.keyid, reason: 'stolen' } as const;
    const ahead = change(fleet.authority, revoke, [fleet.admin]);
    const checkpoint = checkpointOf(ahead);
    expect(refused(envelope, { checkpoint }).code).toBe('E_STALE_VIEW');
    expect(refused(envelope, { authority: ahead, checkpoint }).code).toBe('E_KEY_REVOKED');
  });

  test('that names another update than ours is E_LOG_FORK', () => {
    const forked = { seq: fleet.authority.seq, head: 'f'.repeat(64) };
    const checkpoint = checkpointOf(fleet.authority, { authority: forked });
    expect(refused(envelope, { checkpoint })).toEqual({ code: 'E_LOG_FORK', path: 'checkpoint' });
  });

  test('means nothing to what was admitted and is executed', () => {
    expect(refused(envelope, { checkpoint: null, profile: 'execute' }).code).toBe('none');
  });
});

describe('the threshold', () => {
  const second = keyOf('second');
  const narrow = keyOf('narrow');
  const withKeys = [
    grantOf(second, { name: 'sam' }),
    grantOf(narrow, { name: 'nora', realms: ['lab'] }),
  ].reduce(
    (authority, grant) => change(authority, { type: 'grant', grant }, [fleet.root]),
    fleet.authority,
  );
  const policy = {
    checkpointMaxAge: 900,
    signatures: { default: 1, caps: { volume: 2, destroy: 2 } },
  };
  const authority = change(withKeys, { type: 'set-policy', policy }, [fleet.root]);
  const signedBy = (...signers: (typeof second)[]) => scriptOf(fleet, { signers });

  test('of a capability asks for as many keys, and one is E_SIG_THRESHOLD', () => {
    expect(refused(signedBy(fleet.operator), { authority })).toEqual({
      code: 'E_SIG_THRESHOLD',
      path: 'signatures',
    });
    expect(refused(signedBy(fleet.operator, second), { authority }).code).toBe('none');
    expect(refused(signedBy(fleet.operator), { authority: withKeys }).code).toBe('none');
  });

  test('counts only keys whose own grant covers the whole script', () => {
    expect(refused(signedBy(fleet.operator, narrow), { authority }).code).toBe('E_SIG_THRESHOLD');
  });

  test('counts again before the run starts', () => {
    const profile = 'execute';
    expect(refused(signedBy(fleet.operator), { authority, profile }).code).toBe('E_SIG_THRESHOLD');
  });

  test('can be asked for a destroy and for giving up data', () => {
    const destroy = scriptOf(fleet, {
      draft: { caps: [] },
      payload: { mode: 'destroy', script: undefined },
    });
    expect(refused(destroy, { authority }).code).toBe('E_SIG_THRESHOLD');
    const plain = scriptOf(fleet, { draft: { caps: [] } });
    expect(refused(plain, { authority }).code).toBe('none');
    const forData = { ...policy, signatures: { default: 1, caps: { 'delete-data': 2 } } };
    const guarded = change(withKeys, { type: 'set-policy', policy: forData }, [fleet.root]);
    const deleting = scriptOf(fleet, { draft: { caps: [], deleteData: ['data'] } });
    expect(refused(deleting, { authority: guarded }).code).toBe('E_SIG_THRESHOLD');
  });

  test('of every script is the default of the policy', () => {
    const strict = withPolicy({ signatures: { default: 2, caps: {} } });
    expect(refused(signedBy(fleet.operator), { authority: strict }).code).toBe('E_SIG_THRESHOLD');
  });
});

test('a node names itself when a script is not valid yet: its clock may be the one that is wrong', () => {
  const early = scriptOf(fleet, { payload: { nbf: NOW + 120 } });
  const hintAt = (node?: ScriptTarget) => {
    try {
      const { authority } = fleet;
      const input = { envelope: early, authority, nowSeconds: NOW, profile: 'admit' } as const;
      verifyScript(nodeVerifier, { ...input, ...(node === undefined ? {} : { node }) });
      return 'none';
    } catch (error) {
      return isHyphaError(error, 'E_NOT_YET') ? error.hint : error;
    }
  };
  const node = { id: fleet.nodeId, realms: ['*'] };
  expect(hintAt({ ...node, name: 'edge-1' })).toContain('fix NTP on edge-1');
  expect(hintAt(node)).toContain(`fix NTP on ${fleet.nodeId}`);
  expect(hintAt()).toContain('coordinator');
});
