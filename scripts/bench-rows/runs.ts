import { join } from 'node:path';
import { Queue, QueueEvents, Worker } from 'bullmq';
import { Redis } from 'ioredis';
import { Fleet } from '../../test/fixtures/fleet.ts';
import { SignedRuns } from '../../test/fixtures/signed-runs.ts';
import { percentile, type Row, round, sample } from './measure.ts';

const NOOP = 'export default async function deploy() { return null; }\n';
const RUNS = 200;

/** BullMQ on the fleet's own Redis: what a queue costs without signature, journal or sandbox. */
async function withBullmq<T>(
  fleet: Fleet,
  concurrency: number,
  measure: (add: (count: number) => Promise<unknown>) => Promise<T>,
): Promise<T> {
  const path = join(fleet.state, 'run', 'redis.sock');
  const connect = () => new Redis({ path, maxRetriesPerRequest: null });
  const queue = new Queue('floor', { connection: connect() });
  const events = new QueueEvents('floor', { connection: connect() });
  const worker = new Worker('floor', async () => null, { connection: connect(), concurrency });
  try {
    await Promise.all([queue.waitUntilReady(), events.waitUntilReady(), worker.waitUntilReady()]);
    return await measure(async (count) => {
      const jobs = await Promise.all(Array.from({ length: count }, () => queue.add('noop', {})));
      await Promise.all(jobs.map((job) => job.waitUntilFinished(events)));
    });
  } finally {
    await worker.close();
    await events.close();
    await queue.obliterate({ force: true });
    await queue.close();
  }
}

/** Signed no-op run, submit at the supervisor → receipt, idle node. */
export async function noopRun(): Promise<Row> {
  await using fleet = await Fleet.start('--sals', 'simulated');
  const runs = await SignedRuns.open(fleet);
  const ours = await sample(RUNS, (index) =>
    runs.complete(runs.sign({ deployment: 'bench', generation: index + 1, source: NOOP })),
  );
  const floor = await withBullmq(fleet, 1, (add) => sample(RUNS, () => add(1)));
  const p50Ms = percentile(ours, 0.5);
  const floorMs = percentile(floor, 0.5);
  return {
    name: 'noop-run',
    p50Ms,
    p99Ms: percentile(ours, 0.99),
    floor: { name: 'BullMQ add→finished', p50Ms: floorMs },
    ratio: round(p50Ms / floorMs),
  };
}

/** Signed no-op runs of different deployments, all submitted at once, two runners. */
export async function runsThroughput(): Promise<Row> {
  await using fleet = await Fleet.start('--sals', 'simulated', '--runners', '2');
  const runs = await SignedRuns.open(fleet);
  const batch = (name: string, count: number) =>
    Array.from({ length: count }, (_, index) =>
      runs.sign({
        deployment: `${name}-${index}`,
        generation: 1,
        source: NOOP,
        limits: { resources: { milliCpus: 0, memoryBytes: 0, storageBytes: 0 } },
      }),
    );
  await Promise.all(batch('warm', 20).map((envelope) => runs.complete(envelope)));
  const envelopes = batch('run', RUNS);
  const start = performance.now();
  await Promise.all(envelopes.map((envelope) => runs.complete(envelope)));
  const perSecond = round((RUNS * 1000) / (performance.now() - start));
  const floorPerSecond = await withBullmq(fleet, 2, async (add) => {
    await add(20);
    const floorStart = performance.now();
    await add(RUNS);
    return round((RUNS * 1000) / (performance.now() - floorStart));
  });
  return {
    name: 'runs-throughput',
    perSecond,
    floor: { name: 'BullMQ add→finished', perSecond: floorPerSecond },
    ratio: round(perSecond / floorPerSecond),
  };
}
