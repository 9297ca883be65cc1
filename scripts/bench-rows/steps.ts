import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import type { JournalEvent } from '@hypha/protocol';
import { SignedRuns } from '../../test/fixtures/signed-runs.ts';
import { type Budget, round, sample, timesRow } from './measure.ts';
import { ownFleet } from './own-fleet.ts';

/**
 * The same declaration again and again: each has its intent on disk before it is looked at, and what the
 * simulated volume does itself is next to nothing.
 */
const STEPS = `import { volume } from 'hypha';
export default async function deploy({ steps }) {
  for (let i = 0; i < steps; i++) await volume('one', { size: 1 });
  return null;
}
`;
const RUNS = 20;
const STEPS_EACH = 200;
const COMMITS = 500;
const AT_ONCE = 64;
const STEPS_AT_ONCE_EACH = 100;
const WARM_STEPS = 20;
const LIMITS = {
  resources: { milliCpus: 0, memoryBytes: 0, storageBytes: 1 },
};

/** One row a commit, on disk when it returns: the least that a durable step can cost. */
function openCommits(own: AsyncDisposableStack): () => void {
  const folder = mkdtempSync(join(tmpdir(), 'hypha-bench-'));
  own.defer(() => rmSync(folder, { recursive: true, force: true }));
  const db = new DatabaseSync(join(folder, 'floor.db'));
  own.defer(() => db.close());
  db.exec('PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE event (body TEXT)');
  const insert = db.prepare('INSERT INTO event VALUES (?)');
  const body = 'x'.repeat(400);
  return () => void insert.run(body);
}

/** Time from the first step's intent to the commit, for each step, by the node's own clock. */
function msPerStep(events: readonly JournalEvent[]): number {
  const first = events.find(({ body }) => body.type === 'step-intent');
  const last = events.find(({ body }) => body.type === 'committed');
  if (first === undefined || last === undefined) throw new Error('the run has no steps');
  const steps = events.filter(({ body }) => body.type === 'step-result').length;
  return (last.at - first.at) / steps;
}

export const step: Budget = {
  goal: 'p50 ≤ 2 × floor + 0.3 ms',
  isMet: ({ p50Ms = Number.POSITIVE_INFINITY, floor }) => p50Ms <= 2 * (floor?.p50Ms ?? 0) + 0.3,
  /** A durable step inside a run, one after another; each sample is the mean of one run's. */
  measure: async (own) => {
    const fleet = await ownFleet(own, '--sals', 'simulated');
    const runs = await SignedRuns.open(fleet);
    const sign = (index: number, steps: number) =>
      runs.sign({
        deployment: `bench-${index}`,
        generation: 1,
        source: STEPS,
        input: { steps },
        caps: ['volume'],
        limits: LIMITS,
      });
    await runs.completeAll([sign(0, WARM_STEPS)]);
    const samples: number[] = [];
    for (let index = 1; index <= RUNS; index++) {
      const [done] = await runs.completeAll([sign(index, STEPS_EACH)]);
      samples.push(msPerStep(await runs.events(done?.run ?? '')));
    }
    const commit = openCommits(own);
    const floor = await sample(COMMITS, async () => commit());
    return timesRow('step', samples, { name: 'one fsynced SQLite commit', samples: floor });
  },
};

export const steps64: Budget = {
  goal: '≥ 3,000/s (peers elsewhere: Restate 4,481/s, DBOS 1,557/s)',
  isMet: ({ perSecond = 0 }) => perSecond >= 3000,
  /** Durable steps of 64 runs at once, two runners. */
  measure: async (own) => {
    const fleet = await ownFleet(own, '--sals', 'simulated', '--runners', '2');
    const runs = await SignedRuns.open(fleet);
    const batch = (name: string, steps: number) =>
      Array.from({ length: AT_ONCE }, (_, index) =>
        runs.sign({
          deployment: `${name}-${index}`,
          generation: 1,
          source: STEPS,
          input: { steps },
          caps: ['volume'],
          limits: LIMITS,
        }),
      );
    await runs.completeAll(batch('warm', WARM_STEPS));
    const all = await runs.completeAll(batch('run', STEPS_AT_ONCE_EACH));
    const events = await Promise.all(all.map(({ run }) => runs.events(run)));
    const times = events.flat().map(({ at }) => at);
    const seconds = (Math.max(...times) - Math.min(...times)) / 1000;
    const perSecond = round((AT_ONCE * STEPS_AT_ONCE_EACH) / seconds);
    const commit = openCommits(own);
    const floor = await sample(COMMITS, async () => commit());
    const floorPerSecond = round(1000 / (floor.reduce((sum, ms) => sum + ms, 0) / floor.length));
    return {
      name: 'steps-64',
      perSecond,
      floor: { name: 'fsynced SQLite commits, one by one', perSecond: floorPerSecond },
      ratio: round(perSecond / floorPerSecond),
    };
  },
};
