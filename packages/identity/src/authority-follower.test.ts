import { readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Authority, type AuthorityChange, HyphaError, isHyphaError } from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import { createFleet, openTempDir, signUpdate } from '@hypha/testkit';
import { describe, expect, test } from 'vitest';
import { ImpatientClock } from '../test/impatient-clock.ts';
import { MemoryLedger } from '../test/memory-ledger.ts';
import { AuthorityFollower, type AuthorityFollowerDeps } from './authority-follower.ts';

const fleet = createFleet();
const never = new AbortController().signal;
const NODE = (letter: string) => `node_${letter.repeat(32)}`;
const revokeNode = (letter: string): AuthorityChange => ({
  type: 'revoke-node',
  node: NODE(letter),
  reason: '',
});
const grow = (authority: Authority, letter: string) =>
  authority.apply(signUpdate(authority, revokeNode(letter), fleet.roots));

function setUp(folder: string) {
  const ledger = new MemoryLedger(fleet.authority);
  const failures: unknown[] = [];
  const clock = new ImpatientClock(1000);
  const deps: AuthorityFollowerDeps = {
    folder,
    genesis: fleet.authority.genesisHash,
    ledger,
    verifier: nodeVerifier,
    clock,
    onFailure: (error) => failures.push(error),
  };
  const codes = () => failures.map((error) => (isHyphaError(error) ? error.code : String(error)));
  return { ledger, deps, clock, codes };
}

describe('an authority follower', () => {
  test('reads the whole chain page by page and keeps it', async () => {
    await using folder = await openTempDir();
    const { deps, ledger } = setUp(folder.path);
    ledger.pageSize = 1;
    const follower = await AuthorityFollower.open(deps, never);
    expect(follower.current.head).toBe(fleet.authority.head);
    ledger.fault = new HyphaError('E_UNAVAILABLE', 'away');
    const again = await AuthorityFollower.open(deps, never);
    expect(again.current.head).toBe(fleet.authority.head);
    expect((await stat(join(folder.path, 'authority.json'))).mode & 0o777).toBe(0o600);
  });

  test('has on disk what it uses, at every moment', async () => {
    await using folder = await openTempDir();
    const { deps } = setUp(folder.path);
    const follower = await AuthorityFollower.open(deps, never);
    const next = grow(fleet.authority, 'a');
    await follower.grow(next.updates);
    expect(follower.current.isNodeRevoked(NODE('a'))).toBe(true);
    const kept = JSON.parse(await readFile(join(folder.path, 'authority.json'), 'utf8'));
    expect(kept.updates).toHaveLength(next.updates.length);
  });

  test('uses nothing that did not get to disk', async () => {
    await using folder = await openTempDir();
    const { deps } = setUp(join(folder.path, 'identity'));
    const follower = await AuthorityFollower.open(deps, never);
    await rm(deps.folder, { recursive: true });
    await writeFile(deps.folder, 'where the folder was');
    await expect(follower.grow(grow(fleet.authority, 'a').updates)).rejects.toThrow();
    expect(follower.current.isNodeRevoked(NODE('a'))).toBe(false);
    await rm(deps.folder);
    await follower.grow(grow(fleet.authority, 'a').updates);
    expect(follower.current.isNodeRevoked(NODE('a'))).toBe(true);
  });

  test('is fresh without asking again within the age that is wanted', async () => {
    await using folder = await openTempDir();
    const { deps, ledger } = setUp(folder.path);
    const follower = await AuthorityFollower.open(deps, never);
    const asked = ledger.calls.length;
    expect(await follower.refresh({ maxAgeMs: 60_000, timeoutMs: 1000 })).toBe(true);
    expect(ledger.calls).toHaveLength(asked);
  });

  test('sees a new update once the age is over', async () => {
    await using folder = await openTempDir();
    const { deps, ledger } = setUp(folder.path);
    const follower = await AuthorityFollower.open(deps, never);
    ledger.authorityState = grow(fleet.authority, 'a');
    await follower.refresh({ maxAgeMs: -1, timeoutMs: 1000 });
    expect(follower.current.isNodeRevoked(NODE('a'))).toBe(true);
  });

  test('goes on with what it has while the ledger is away, without waiting for it twice', async () => {
    await using folder = await openTempDir();
    const { deps, ledger, codes } = setUp(folder.path);
    const follower = await AuthorityFollower.open(deps, never);
    ledger.fault = new HyphaError('E_UNAVAILABLE', 'away');
    expect(await follower.refresh({ maxAgeMs: -1, timeoutMs: 1000 })).toBe(false);
    const asked = ledger.calls.length;
    expect(await follower.refresh({ maxAgeMs: -1, timeoutMs: 1000 })).toBe(false);
    expect(ledger.calls).toHaveLength(asked);
    expect(codes()).toEqual(['E_UNAVAILABLE']);
    expect(follower.current.seq).toBe(fleet.authority.seq);
  });

  test('waits no longer than it is allowed to', async () => {
    await using folder = await openTempDir();
    const { deps, ledger } = setUp(folder.path);
    const follower = await AuthorityFollower.open(deps, never);
    const hanging = Promise.withResolvers<never>();
    ledger.authority = () => hanging.promise;
    expect(await follower.refresh({ maxAgeMs: -1, timeoutMs: 50 })).toBe(false);
    hanging.reject(new Error('late'));
  });

  test('refuses a ledger that branched off, and keeps its own', async () => {
    await using folder = await openTempDir();
    const { deps, ledger, codes } = setUp(folder.path);
    const follower = await AuthorityFollower.open(deps, never);
    const ours = await follower.grow(grow(fleet.authority, 'a').updates);
    ledger.authorityState = grow(fleet.authority, 'b');
    expect(await follower.refresh({ maxAgeMs: -1, timeoutMs: 1000 })).toBe(false);
    expect(codes()).toEqual(['E_LOG_FORK']);
    expect(follower.current.head).toBe(ours.head);
  });

  test('keeps what a sender stapled when the ledger is behind', async () => {
    await using folder = await openTempDir();
    const { deps } = setUp(folder.path);
    const follower = await AuthorityFollower.open(deps, never);
    const ours = await follower.grow(grow(fleet.authority, 'a').updates);
    expect(await follower.refresh({ maxAgeMs: 60_000, timeoutMs: 1000 })).toBe(true);
    await follower.refresh({ maxAgeMs: -1, timeoutMs: 1000 });
    expect(follower.current.head).toBe(ours.head);
  });

  test('does not call itself fresh on a ledger that names updates it does not serve', async () => {
    await using folder = await openTempDir();
    const { deps, ledger, codes } = setUp(folder.path);
    const follower = await AuthorityFollower.open(deps, never);
    const newer = grow(fleet.authority, 'a');
    ledger.authority = async () => ({ items: [], head: { seq: newer.seq, hash: newer.head } });
    expect(await follower.refresh({ maxAgeMs: -1, timeoutMs: 1000 })).toBe(false);
    expect(codes()).toEqual(['E_AUTHORITY']);
  });

  test('takes stapled updates from two senders at once, in either order', async () => {
    await using folder = await openTempDir();
    const { deps } = setUp(folder.path);
    const follower = await AuthorityFollower.open(deps, never);
    const one = grow(fleet.authority, 'a');
    const two = grow(one, 'b');
    await Promise.all([follower.grow(two.updates), follower.grow(one.updates)]);
    expect(follower.current.head).toBe(two.head);
  });

  test('a refused staple does not hold up the next', async () => {
    await using folder = await openTempDir();
    const { deps } = setUp(folder.path);
    const follower = await AuthorityFollower.open(deps, never);
    const next = grow(fleet.authority, 'a');
    const bad = follower.grow([{ ...(next.updates.at(-1) ?? fleet.genesis), payload: 'e30=' }]);
    const good = follower.grow(next.updates);
    await expect(bad).rejects.toMatchObject({ code: 'E_SIG_INVALID' });
    expect((await good).head).toBe(next.head);
  });

  test.for([
    ['cut short', '{"v":1,"upd'],
    ['of another fleet', JSON.stringify({ v: 1, updates: createFleet().authority.updates })],
  ] as const)('reads the ledger again when the file is %s', async ([, text]) => {
    await using folder = await openTempDir();
    const { deps, codes } = setUp(folder.path);
    await writeFile(join(folder.path, 'authority.json'), text, { mode: 0o600 });
    const follower = await AuthorityFollower.open(deps, never);
    expect(follower.current.head).toBe(fleet.authority.head);
    expect(codes()).toEqual(['E_AUTHORITY']);
  });

  test('keeps both updates when the ledger has two at one number, once', async () => {
    await using folder = await openTempDir();
    const { deps, ledger } = setUp(folder.path);
    const follower = await AuthorityFollower.open(deps, never);
    const ours = await follower.grow(grow(fleet.authority, 'a').updates);
    const theirs = grow(grow(fleet.authority, 'b'), 'c');
    for (const authorityState of [grow(fleet.authority, 'b'), theirs]) {
      ledger.authorityState = authorityState;
      const { code } = await follower.read(never).then(
        () => ({ code: 'none' }),
        (error: HyphaError) => error,
      );
      expect(['E_LOG_FORK', 'E_AUTHORITY']).toContain(code);
    }
    const names = await readdir(join(folder.path, 'evidence'));
    expect(names).toEqual([expect.stringMatching(/^authority-fork-/)]);
    const kept = JSON.parse(await readFile(join(folder.path, 'evidence', names[0] ?? ''), 'utf8'));
    expect(kept).toMatchObject({
      ours: ours.updates.at(-1),
      theirs: theirs.updates.at(-2),
    });
  });

  test('keeps nothing of an update that no sound signer made', async () => {
    await using folder = await openTempDir();
    const { deps } = setUp(folder.path);
    const follower = await AuthorityFollower.open(deps, never);
    await follower.grow(grow(fleet.authority, 'a').updates);
    // Signed by an operator, who may change nothing.
    const bogus = signUpdate(fleet.authority, revokeNode('b'), [fleet.operator]);
    await expect(follower.grow([bogus])).rejects.toMatchObject({ code: 'E_AUTHORITY' });
    expect(await readdir(folder.path)).toEqual(['authority.json']);
  });

  test('tells of a newer state once it is on disk', async () => {
    await using folder = await openTempDir();
    const { deps } = setUp(folder.path);
    const follower = await AuthorityFollower.open(deps, never);
    const told: number[] = [];
    follower.onGrown(({ seq }) => told.push(seq));
    const next = grow(fleet.authority, 'a');
    await follower.grow(next.updates);
    await follower.grow(next.updates);
    expect(told).toEqual([next.seq]);
  });
});
