import { AuthorityFollower } from '@hypha/identity';
import { HyphaError } from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import { createLogger } from '@hypha/service';
import { createFleet, openTempDir, TestLog } from '@hypha/testkit';
import { expect, test } from 'vitest';
import { FleetLog } from './fleet-log.ts';

const fleet = createFleet();
const never = new AbortController().signal;
const T0 = 1_800_000_000;
const NODE = { name: 'edge-1' };

async function setUp(folder: string) {
  const log = TestLog.of(fleet);
  const lines: string[] = [];
  const failure: { error: Error | undefined } = { error: undefined };
  const world = { log, lines, wallMs: T0 * 1000, monotonicMs: 0, failure };
  const shared = {
    folder,
    verifier: nodeVerifier,
    clock: {
      nowMs: () => world.wallMs,
      monotonicMs: () => world.monotonicMs,
      jitter: () => 0.5,
      sleep: () => new Promise<void>(() => undefined),
    },
  };
  const authority = await AuthorityFollower.open(
    {
      ...shared,
      genesis: fleet.authority.genesisHash,
      ledger: {
        authority: async () => {
          const { updates, seq, head } = fleet.authority;
          return { items: [...updates], head: { seq, hash: head } };
        },
      },
      onFailure: () => undefined,
    },
    never,
  );
  const fleetLog = new FleetLog({
    ...shared,
    log: createLogger({
      name: 'test',
      stream: { write: (line: string) => void lines.push(line) },
    }),
    authority: () => authority.current,
  });
  await fleetLog.open(authority, {
    checkpoint: async () => {
      if (failure.error !== undefined) throw failure.error;
      return { checkpoint: log.checkpoint({ time: T0 }) };
    },
    consistency: ({ from, to }) => log.consistency(from, to),
  });
  return { ...world, world, fleetLog };
}

test('a node goes by the ledger when its own clock is behind, and says so once', async () => {
  await using folder = await openTempDir();
  const { fleetLog, log, world, lines } = await setUp(folder.path);
  world.wallMs = (T0 - 3600) * 1000;
  await fleetLog.offer([], log.checkpoint({ time: T0 }));
  await fleetLog.offer([], log.checkpoint({ time: T0 + 1 }));
  expect(fleetLog.nowSeconds()).toBe(T0 + 1);
  expect(fleetLog.alarms().join()).toMatch(/clock is 3601 s behind the ledger: fix NTP/);
  expect(lines.filter((line) => line.includes('fix NTP'))).toHaveLength(1);
  world.wallMs = (T0 + 1) * 1000;
  expect(fleetLog.alarms()).toEqual([]);
});

test('what is not valid yet, or no more, names the clock of the node and what it is off by', async () => {
  await using folder = await openTempDir();
  const { fleetLog, log, world } = await setUp(folder.path);
  await fleetLog.offer([], log.checkpoint({ time: T0 }));
  const explain = (code: 'E_NOT_YET' | 'E_EXPIRED' | 'E_STALE_VIEW') =>
    fleetLog.explain(new HyphaError(code, 'no'), NODE) as HyphaError;
  expect(explain('E_EXPIRED').hint).toMatch(/the clock of edge-1 says 2027-01-15T08:00:00\.000Z$/);
  world.wallMs = (T0 - 600) * 1000;
  expect(explain('E_NOT_YET').hint).toMatch(/600 s behind .*fix NTP on edge-1$/);
  world.wallMs = (T0 + 86_400) * 1000;
  expect(explain('E_EXPIRED').hint).toMatch(/86400 s ahead of .*fix NTP on edge-1$/);
  const other = new HyphaError('E_SCOPE', 'no');
  expect(fleetLog.explain(other, NODE)).toBe(other);
});

test('a ledger that does not answer is away, and one that cannot be believed is an alarm', async () => {
  await using folder = await openTempDir();
  const { fleetLog, failure, lines, world } = await setUp(folder.path);
  const alarmed = async (error: Error) => {
    failure.error = error;
    // Past any pause after the failure before.
    world.monotonicMs += 3_600_000;
    await fleetLog.refresh(0);
    return lines.filter((line) => line.includes('"alarm":true')).length;
  };
  expect(await alarmed(new HyphaError('E_UNAVAILABLE', 'refused'))).toBe(0);
  expect(await alarmed(new DOMException('took too long', 'TimeoutError'))).toBe(0);
  expect(await alarmed(new HyphaError('E_STALE_VIEW', 'updates are withheld'))).toBe(1);
  expect(await alarmed(new HyphaError('E_CHECKPOINT', 'not signed by the ledger'))).toBe(2);
});

test('a head that contradicts the pinned one is an alarm until a person has looked into it', async () => {
  await using folder = await openTempDir();
  const { fleetLog, log, lines } = await setUp(folder.path);
  await fleetLog.refresh(0);
  const forged = log.fork(log.size - 1);
  forged.append(fleet.genesis);
  await fleetLog.offer([], forged.checkpoint({ time: T0 + 5 }));
  expect(fleetLog.isDisputed).toBe(true);
  expect(fleetLog.alarms().join()).toMatch(/ledger contradicts itself/);
  expect(lines.some((line) => line.includes('"alarm":true') && line.includes('evidence'))).toBe(
    true,
  );
  expect(fleetLog.newest()).toMatchObject({ time: T0 });
});
