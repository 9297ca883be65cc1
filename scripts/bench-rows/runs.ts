import { setTimeout as delay } from 'node:timers/promises';
import { startRedis } from '@hypha/testkit';
import { Queue, QueueEvents, Worker } from 'bullmq';
import { SignedRuns } from '../../test/fixtures/signed-runs.ts';
import { type Budget, round, sample, timesRow } from './measure.ts';
import { ownFleet } from './own-fleet.ts';

const NOOP = 'export default async function deploy() { return null; }\n';
const RUNS = 200;
const RUNS_AT_ONCE = 500;
const WARM_RUNS = 20;
const FLOOR = 'BullMQ add→finished';
/** A Redis that is gone already is not waited for. */
const CLOSE_MS_MAX = 2_000;

/** BullMQ on a Redis like the fleet's: what a queue costs without signature, journal or sandbox. */
async function openBullmq(
  own: AsyncDisposableStack,
  concurrency: number,
): Promise<(count: number) => Promise<void>> {
  const redis = own.use(await startRedis({ appendfsync: 'everysec' }));
  const connection = { path: redis.socket, maxRetriesPerRequest: null };
  const queue = new Queue('floor', { connection });
  const events = new QueueEvents('floor', { connection });
  const worker = new Worker('floor', async () => null, { connection, concurrency });
  // Without a listener an error event would end this process; what fails here fails the row.
  queue.on('error', () => undefined);
  events.on('error', () => undefined);
  worker.on('error', () => undefined);
  // Everyone who waits for a job listens to both.
  queue.setMaxListeners(0);
  events.setMaxListeners(0);
  own.defer(async () => {
    const closed = Promise.allSettled([worker.close(true), events.close(), queue.close()]);
    await Promise.race([closed, delay(CLOSE_MS_MAX)]);
  });
  await Promise.all([queue.waitUntilReady(), events.waitUntilReady(), worker.waitUntilReady()]);
  return async (count) => {
    const jobs = await Promise.all(Array.from({ length: count }, () => queue.add('noop', {})));
    await Promise.all(jobs.map((job) => job.waitUntilFinished(events)));
  };
}

export const noopRun: Budget = {
  goal: 'p50 ≤ 15 ms, p99 ≤ 60 ms',
  isMet: ({ p50Ms = Number.POSITIVE_INFINITY, p99Ms = Number.POSITIVE_INFINITY }) =>
    p50Ms <= 15 && p99Ms <= 60,
  /** Signed no-op run, submit at the supervisor → receipt, idle node. */
  measure: async (own) => {
    const fleet = await ownFleet(own, '--sals', 'simulated');
    const runs = await SignedRuns.open(fleet);
    const noop = (index: number) =>
      runs.sign({ deployment: 'bench', generation: index + 1, source: NOOP });
    const samples = await sample(RUNS, (index) => runs.complete(noop(index)), WARM_RUNS);
    const add = await openBullmq(own, 1);
    const floor = { name: FLOOR, samples: await sample(RUNS, () => add(1), WARM_RUNS) };
    return timesRow('noop-run', samples, floor);
  },
};

export const runsThroughput: Budget = {
  goal: '≥ 300/s',
  isMet: ({ perSecond = 0 }) => perSecond >= 300,
  /** Signed no-op runs of different deployments, all submitted at once, two runners, by the node's own clock. */
  measure: async (own) => {
    const fleet = await ownFleet(own, '--sals', 'simulated', '--runners', '2');
    const runs = await SignedRuns.open(fleet);
    const limits = { resources: { milliCpus: 0, memoryBytes: 0, storageBytes: 0 } };
    const batch = (name: string, count: number) =>
      Array.from({ length: count }, (_, index) =>
        runs.sign({ deployment: `${name}-${index}`, generation: 1, source: NOOP, limits }),
      );
    await runs.completeAll(batch('warm', RUNS));
    const views = await runs.completeAll(batch('run', RUNS_AT_ONCE));
    const begunAt = Math.min(...views.map(({ acceptedAt }) => acceptedAt));
    const endedAt = Math.max(...views.map((view) => view.endedAt ?? 0));
    const perSecond = round((RUNS_AT_ONCE * 1000) / (endedAt - begunAt));
    const add = await openBullmq(own, 2);
    await add(RUNS);
    const floorPerSecond = await rate(RUNS_AT_ONCE, () => add(RUNS_AT_ONCE));
    return {
      name: 'runs-throughput',
      perSecond,
      floor: { name: FLOOR, perSecond: floorPerSecond },
      ratio: round(perSecond / floorPerSecond),
    };
  },
};

async function rate(count: number, task: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await task();
  return round((count * 1000) / (performance.now() - start));
}
