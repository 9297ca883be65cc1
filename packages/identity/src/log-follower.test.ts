import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { type AuthorityPage, HyphaError, isHyphaError } from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import { createFleet, openTempDir, signUpdate, TestLog, waitFor } from '@hypha/testkit';
import { describe, expect, test } from 'vitest';
import { ImpatientClock } from '../test/impatient-clock.ts';
import { MemoryLedger } from '../test/memory-ledger.ts';
import { AuthorityFollower } from './authority-follower.ts';
import { LogFollower } from './log-follower.ts';

const fleet = createFleet();
const never = new AbortController().signal;
const OTHER = `node_${'a'.repeat(32)}`;
const revocation = signUpdate(
  fleet.authority,
  { type: 'revoke-node', node: OTHER, reason: '' },
  fleet.roots,
);
const ALWAYS = { maxAgeMs: -1, timeoutMs: 5000 };

async function setUp(folder: string) {
  const failures: unknown[] = [];
  const log = TestLog.of(fleet);
  const ledger = new MemoryLedger(fleet.authority);
  const world = {
    log,
    ledger,
    codes: () => failures.map((error) => (isHyphaError(error) ? error.code : String(error))),
    serve: (): string => log.checkpoint(),
    revoke: () => {
      log.append(revocation);
      ledger.authorityState = ledger.authorityState.extend([revocation]);
    },
  };
  const shared = {
    folder,
    verifier: nodeVerifier,
    clock: new ImpatientClock(1000),
    onFailure: (error: unknown) => failures.push(error),
  };
  const genesis = fleet.authority.genesisHash;
  const authority = await AuthorityFollower.open({ ...shared, genesis, ledger }, never);
  const follower = await LogFollower.open({
    ...shared,
    authority,
    ledger: {
      checkpoint: async () => {
        if (ledger.fault !== undefined) throw ledger.fault;
        return { checkpoint: world.serve() };
      },
      consistency: ({ from, to }) => log.consistency(from, to),
    },
    onFork: (error) => failures.push(error),
  });
  return { ...world, world, follower };
}

describe('a follower of log and authority', () => {
  test('reads both at once', async () => {
    await using folder = await openTempDir();
    const { follower, revoke, log } = await setUp(folder.path);
    revoke();
    expect(await follower.refresh({ ...ALWAYS, maxAgeMs: 60_000 })).toBe(true);
    expect(follower.newest).toMatchObject({ size: log.size });
    expect(follower.authority.current.isNodeRevoked(OTHER)).toBe(true);
  });

  test('asks again when the reading it could share had asked before', async () => {
    await using folder = await openTempDir();
    const { follower, ledger, revoke } = await setUp(folder.path);
    const original = ledger.authority.bind(ledger);
    const asked = Promise.withResolvers<void>();
    const older = Promise.withResolvers<AuthorityPage>();
    const before = await original({ since: fleet.authority.seq });
    ledger.authority = () => {
      asked.resolve();
      return older.promise;
    };
    const earlier = follower.refresh(ALWAYS);
    await asked.promise;
    revoke();
    const later = follower.refresh({ maxAgeMs: 0, timeoutMs: 5000 });
    ledger.authority = original;
    older.resolve(before);
    await earlier;
    expect(await later).toBe(true);
    expect(follower.authority.current.isNodeRevoked(OTHER)).toBe(true);
  });

  test('sees that a ledger withholds an update that its own head names', async () => {
    await using folder = await openTempDir();
    const { follower, log, codes } = await setUp(folder.path);
    log.append(revocation);
    expect(await follower.refresh(ALWAYS)).toBe(false);
    expect(codes()).toEqual(['E_STALE_VIEW']);
    // What is judged by it from now on is refused at once, not only when it has grown old.
    expect(follower.newest?.authority.seq).toBe(fleet.authority.seq + 1);
  });

  test('reads the authority also from a ledger that signs no heads', async () => {
    await using folder = await openTempDir();
    const { follower, world, revoke, codes } = await setUp(folder.path);
    revoke();
    world.serve = () => {
      throw new HyphaError('E_UNAVAILABLE', 'no key');
    };
    expect(await follower.refresh(ALWAYS)).toBe(false);
    expect(codes()).toEqual(['E_UNAVAILABLE']);
    expect(follower.authority.current.isNodeRevoked(OTHER)).toBe(true);
  });

  test('catches up by what comes with work while the ledger is away', async () => {
    await using folder = await openTempDir();
    const { follower, log, ledger } = await setUp(folder.path);
    ledger.fault = new HyphaError('E_UNAVAILABLE', 'away');
    log.append(revocation);
    await follower.offer([revocation], log.checkpoint());
    expect(follower.newest).toMatchObject({ size: log.size });
    expect(follower.authority.current.isNodeRevoked(OTHER)).toBe(true);
    expect(follower.checkpoints.pinned).toBeUndefined();
  });

  test('does not believe a head that came with updates it refuses', async () => {
    await using folder = await openTempDir();
    const { follower, log } = await setUp(folder.path);
    const bogus = signUpdate(fleet.authority, { type: 'revoke-node', node: OTHER, reason: '' }, [
      fleet.operator,
    ]);
    await expect(follower.offer([bogus], log.checkpoint())).rejects.toThrow();
    expect(follower.newest).toBeNull();
  });

  test('keeps what proves that a ledger has two histories', async () => {
    await using folder = await openTempDir();
    const { follower, log, world, revoke } = await setUp(folder.path);
    const hidden = log.fork(log.size);
    hidden.append(fleet.genesis);
    log.append(fleet.authority.updates[1] ?? fleet.genesis);
    await follower.refresh(ALWAYS);
    world.serve = () => hidden.checkpoint();
    revoke();
    expect(await follower.refresh(ALWAYS)).toBe(false);
    expect(follower.checkpoints.isDisputed).toBe(true);
    expect(await readdir(join(folder.path, 'evidence'))).toHaveLength(1);
    // Who may do what is signed by roots and admins, so it is followed whatever the log is worth.
    expect(follower.authority.current.isNodeRevoked(OTHER)).toBe(true);
  });

  test('follows in the background until it is told to stop', async () => {
    await using folder = await openTempDir();
    const { follower, ledger, codes, revoke } = await setUp(folder.path);
    const stopping = new AbortController();
    const running = follower.run(1, stopping.signal);
    await waitFor(() => follower.newest !== null);
    ledger.fault = new HyphaError('E_UNAVAILABLE', 'away');
    await waitFor(() => codes().length >= 2);
    ledger.fault = undefined;
    revoke();
    await waitFor(() => follower.authority.current.isNodeRevoked(OTHER));
    stopping.abort();
    await running;
  });
});
