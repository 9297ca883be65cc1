import { readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { base64, type HyphaError } from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import {
  admitNode,
  createFleet,
  createKey,
  openTempDir,
  signUpdate,
  TestLog,
} from '@hypha/testkit';
import { describe, expect, test } from 'vitest';
import { CheckpointFollower } from './checkpoint-follower.ts';
import { pinFile } from './checkpoint-pin.ts';
import { EvidenceFolder } from './evidence-folder.ts';

const fleet = createFleet();
const never = new AbortController().signal;
/** Something to append: any envelope will do. */
const entry = () => admitNode(fleet).admission;
const T0 = 1_800_000_000;

/** A log that serves its own proofs, and time that stands still. */
async function setUp() {
  const temp = await openTempDir();
  const log = TestLog.of(fleet);
  const forks: { error: HyphaError; evidence: string }[] = [];
  const world = {
    folder: temp.path,
    log,
    forks,
    /** Whose proofs are served. */
    proofs: log,
    wallMs: T0 * 1000,
    monotonicMs: 0,
    authority: fleet.authority,
    open: () =>
      CheckpointFollower.open({
        folder: temp.path,
        genesis: fleet.authority.genesisHash,
        verifier: nodeVerifier,
        proofs: { consistency: ({ from, to }) => world.proofs.consistency(from, to) },
        clock: { nowMs: () => world.wallMs, monotonicMs: () => world.monotonicMs },
        evidence: new EvidenceFolder(join(temp.path, 'evidence'), () => world.wallMs),
        authority: () => world.authority,
        onFork: (error, evidence) => forks.push({ error, evidence }),
      }),
    /** A follower that has taken what the log is now. */
    pin: async () => {
      const follower = await world.open();
      await follower.take(log.checkpoint({ time: T0 }), never);
      return follower;
    },
    evidence: () => readdir(join(temp.path, 'evidence')).catch(() => []),
    readEvidence: async () => {
      const [name = ''] = await world.evidence();
      return JSON.parse(await readFile(join(temp.path, 'evidence', name), 'utf8'));
    },
    [Symbol.asyncDispose]: () => temp[Symbol.asyncDispose](),
  };
  return world;
}

const pinnedSize = (follower: CheckpointFollower) => follower.pinned?.size;

/** What cannot be true beside what was seen before. */
async function expectFork(taking: Promise<unknown>): Promise<void> {
  await expect(taking).rejects.toMatchObject({ code: 'E_LOG_FORK' });
}

describe('a follower of the log', () => {
  test('pins the first head it is served, on disk and for its owner alone', async () => {
    await using world = await setUp();
    const { open, log } = world;
    const follower = await open();
    expect(follower.newest).toBeNull();
    await follower.take(log.checkpoint({ time: T0 }), never);
    expect(follower.newest).toMatchObject({ size: log.size, time: T0 });
    expect((await stat(pinFile(world.folder))).mode & 0o777).toBe(0o600);
    expect((await open()).newest).toMatchObject({ size: log.size, time: T0 });
  });

  test('moves its pin with a proof, and not without one', async () => {
    await using world = await setUp();
    const { log } = world;
    const follower = await world.pin();
    const before = log.size;
    log.append(entry());
    world.proofs = log.fork(before);
    world.proofs.append(entry());
    const next = log.checkpoint({ time: T0 + 5 });
    await expectFork(follower.take(next, never));
    expect(pinnedSize(follower)).toBe(before);
  });

  test('believes a proof that was spoilt on its way once it is given again', async () => {
    await using world = await setUp();
    const { log } = world;
    const follower = await world.pin();
    world.proofs = log.fork(log.size);
    world.proofs.append(entry());
    log.append(entry());
    const next = log.checkpoint({ time: T0 + 5 });
    await expectFork(follower.take(next, never));
    world.proofs = log;
    await follower.take(next, never);
    expect(follower.isDisputed).toBe(false);
    expect(pinnedSize(follower)).toBe(log.size);
  });

  test('keeps both heads of two histories of one size, and believes no newer one, also after a restart', async () => {
    await using world = await setUp();
    const { log } = world;
    const follower = await world.open();
    const hidden = log.fork(log.size);
    hidden.append(entry());
    log.append(entry());
    await follower.take(log.checkpoint({ time: T0 }), never);
    const forged = hidden.checkpoint({ time: T0 + 1 });
    await expectFork(follower.take(forged, never));
    expect(await world.readEvidence()).toMatchObject({
      kind: 'log-fork',
      ours: log.checkpoint({ time: T0 }),
      theirs: forged,
    });
    expect(world.forks).toHaveLength(1);

    log.append(entry());
    const again = await world.open();
    const honest = log.checkpoint({ time: T0 + 9 });
    await expectFork(again.take(honest, never));
    await again.offer(honest);
    expect(again.newest).toMatchObject({ time: T0 });
    // One finding, one file, one alarm.
    expect(await world.evidence()).toHaveLength(1);
    expect(world.forks).toHaveLength(1);
  });

  test('takes the next head as the first once a person has removed the pin', async () => {
    await using world = await setUp();
    const { log } = world;
    const follower = await world.open();
    const hidden = log.fork(log.size);
    hidden.append(entry());
    log.append(entry());
    await follower.take(log.checkpoint({ time: T0 }), never);
    await expect(follower.offer(hidden.checkpoint({ time: T0 + 1 }))).rejects.toThrow();
    await rm(pinFile(world.folder));
    const again = await world.open();
    await again.take(hidden.checkpoint({ time: T0 + 2 }), never);
    expect(again.newest).toMatchObject({ time: T0 + 2 });
    expect(await world.evidence()).toHaveLength(1);
  });

  test('refuses a ledger that signs fewer entries than it did before', async () => {
    await using world = await setUp();
    const { log } = world;
    const follower = await world.open();
    const before = log.size;
    log.append(entry());
    await follower.take(log.checkpoint({ time: T0 }), never);
    const setBack = log.checkpoint({ size: before, time: T0 + 60 });
    await expectFork(follower.take(setBack, never));
    expect(follower.isDisputed).toBe(true);
  });

  test('refuses an old head that is served again, and goes on with the next sound one', async () => {
    await using world = await setUp();
    const { log } = world;
    const follower = await world.open();
    const old = log.checkpoint({ time: T0 });
    await follower.take(old, never);
    log.append(entry());
    await follower.take(log.checkpoint({ time: T0 + 5 }), never);
    await expectFork(follower.take(old, never));
    expect(await world.evidence()).toEqual([expect.stringMatching(/^log-rollback-/)]);
    log.append(entry());
    await follower.take(log.checkpoint({ time: T0 + 6 }), never);
    expect(follower.newest).toMatchObject({ size: log.size, time: T0 + 6 });
  });

  test('refuses a head that binds another authority than the one that was replayed', async () => {
    await using world = await setUp();
    const revoke = (letter: string) =>
      signUpdate(
        fleet.authority,
        { type: 'revoke-node', node: `node_${letter.repeat(32)}`, reason: '' },
        fleet.roots,
      );
    world.authority = fleet.authority.apply(revoke('a'));
    const other = world.log.fork(world.log.size);
    other.append(revoke('b'));
    const follower = await world.open();
    const taking = follower.take(other.checkpoint({ time: T0 }), never);
    await expectFork(taking);
    expect(follower.newest).toBeNull();
    const kept = await world.readEvidence();
    expect(kept.ours).toEqual(world.authority.updates.at(-1));
  });

  test.for(['of another key', 'not a note'] as const)('refuses what is %s', async (what) => {
    await using world = await setUp();
    const { open, log } = world;
    const follower = await open();
    const note = what === 'not a note' ? what : log.checkpoint({ signer: createKey() });
    await expect(follower.take(note, never)).rejects.toMatchObject({ code: 'E_CHECKPOINT' });
    await expect(follower.offer(note)).rejects.toMatchObject({ code: 'E_CHECKPOINT' });
    expect(follower.newest).toBeNull();
    expect(await world.evidence()).toEqual([]);
  });

  test('verifies what it pinned by the key of that time when the ledger has a new one', async () => {
    await using world = await setUp();
    await world.pin();
    const key = createKey();
    const change = { type: 'set-ledger-key', publicKey: base64(key.publicKey) } as const;
    const update = signUpdate(fleet.authority, change, fleet.roots);
    world.authority = fleet.authority.apply(update);
    const again = await world.open();
    expect(again.newest).toMatchObject({ time: T0 });
    world.log.append(update);
    await again.take(world.log.checkpoint({ time: T0 + 5, signer: key }), never);
    expect(pinnedSize(again)).toBe(world.log.size);
  });

  test('does not start from a pin that it cannot read', async () => {
    await using world = await setUp();
    const { open } = world;
    await writeFile(pinFile(world.folder), '{"v":1,"pin', { mode: 0o600 });
    await expect(open()).rejects.toMatchObject({ code: 'E_CHECKPOINT' });
  });
});

describe('a head that came with work', () => {
  test('says how fresh the authority is, and is pinned only by a proof of the ledger', async () => {
    await using world = await setUp();
    const { log } = world;
    const follower = await world.pin();
    const before = log.size;
    log.append(entry());
    await follower.offer(log.checkpoint({ time: T0 + 30 }));
    expect(follower.newest).toMatchObject({ size: log.size, time: T0 + 30 });
    expect(pinnedSize(follower)).toBe(before);
    log.append(entry());
    await follower.take(log.checkpoint({ time: T0 + 40 }), never);
    expect(pinnedSize(follower)).toBe(log.size);
  });

  test('is held against what the ledger serves: a history for one node alone is found out', async () => {
    await using world = await setUp();
    const { log } = world;
    const follower = await world.pin();
    const hidden = log.fork(log.size);
    hidden.append(entry());
    await follower.offer(hidden.checkpoint({ time: T0 + 1 }));
    log.append(entry());
    log.append(entry());
    const taking = follower.take(log.checkpoint({ time: T0 + 2 }), never);
    await expectFork(taking);
    expect(follower.newest).toMatchObject({ time: T0 });
  });

  test('proves that the ledger was set back when that serves fewer entries later', async () => {
    await using world = await setUp();
    const { log } = world;
    const follower = await world.pin();
    const before = log.size;
    log.append(entry());
    await follower.offer(log.checkpoint({ time: T0 + 1 }));
    const taking = follower.take(log.checkpoint({ size: before, time: T0 + 2 }), never);
    await expectFork(taking);
    expect(follower.isDisputed).toBe(true);
  });

  test('changes nothing when it is older than what is known', async () => {
    await using world = await setUp();
    const { log } = world;
    const follower = await world.open();
    const old = log.checkpoint({ time: T0 - 60 });
    log.append(entry());
    await follower.take(log.checkpoint({ time: T0 }), never);
    await follower.offer(old);
    expect(follower.newest).toMatchObject({ time: T0 });
    expect(await world.evidence()).toEqual([]);
  });

  test('does not wait for a ledger that hangs', async () => {
    await using world = await setUp();
    const { log } = world;
    const follower = await world.pin();
    const proof = Promise.withResolvers<never>();
    const hanging = log.fork(log.size);
    hanging.consistency = () => proof.promise;
    world.proofs = hanging;
    log.append(entry());
    const taking = follower.take(log.checkpoint({ time: T0 + 1 }), never);
    await follower.offer(log.checkpoint({ time: T0 + 2 }));
    expect(follower.newest).toMatchObject({ time: T0 + 2 });
    proof.reject(new Error('away'));
    await expect(taking).rejects.toThrow('away');
  });
});

describe('the clock', () => {
  test('is not earlier than what was signed, carried on with monotonic time', async () => {
    await using world = await setUp();
    const follower = await world.open();
    world.wallMs = 0;
    await follower.take(world.log.checkpoint({ time: T0 }), never);
    world.monotonicMs += 90_000;
    expect(follower.floor.nowSeconds()).toBe(T0 + 90);
    expect(follower.floor.behindSeconds()).toBe(T0 + 90);
    expect((await world.open()).floor.nowSeconds()).toBe(T0);
  });

  test('is the wall clock where that is later', async () => {
    await using world = await setUp();
    const follower = await world.pin();
    world.wallMs = (T0 + 500) * 1000;
    expect(follower.floor.nowSeconds()).toBe(T0 + 500);
    expect(follower.floor.behindSeconds()).toBe(0);
    expect(follower.floor.aheadSeconds()).toBe(500);
  });

  test('remembers what a head that was never proven said of the time', async () => {
    await using world = await setUp();
    const follower = await world.open();
    await follower.offer(world.log.checkpoint({ time: T0 + 7 }));
    world.wallMs = 0;
    expect((await world.open()).floor.signed).toBe(T0 + 7);
  });
});

test('evidence is never overwritten and takes at most a hundred files', async () => {
  await using folder = await openTempDir();
  const evidence = new EvidenceFolder(folder.path, () => 0);
  const found = (ours: number) => ({ kind: 'log-fork', reason: '', ours, theirs: 'x' }) as const;
  expect(await evidence.keep(found(0))).toBeDefined();
  expect(await evidence.keep(found(0))).toBeUndefined();
  for (let count = 1; count < 100; count++) await evidence.keep(found(count));
  expect(await evidence.keep(found(100))).toBeUndefined();
  expect(await evidence.list()).toHaveLength(100);
});
