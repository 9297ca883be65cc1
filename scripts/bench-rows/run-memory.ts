import { waitFor } from '@hypha/testkit';
import type { Fleet } from '../../test/fixtures/fleet.ts';
import { runnerPids } from '../../test/fixtures/node-world.ts';
import { commandOf, processTree } from '../../test/fixtures/process-tree.ts';
import { SignedRuns } from '../../test/fixtures/signed-runs.ts';
import { type Budget, type Row, round } from './measure.ts';
import { ownFleet } from './own-fleet.ts';
import { pssMiB } from './process-memory.ts';

/** As many as one sandbox host takes. */
const RUNS = 16;
const WAIT_MS_MAX = 60_000;
/** Short of what makes a run wait without a process, so that all of them are in memory at once. */
const WAITING = `import { volume, sleep } from 'hypha';
export default async function deploy() {
  await volume('one', { size: 1 });
  for (let i = 0; i < 60; i++) await sleep(1000);
  return null;
}
`;
const LIMITS = { resources: { milliCpus: 0, memoryBytes: 0, storageBytes: 1 } };

/** One runner that holds 16 runs at once, and the sandbox hosts below it. */
async function measureMemory(
  own: AsyncDisposableStack,
  name: string,
  pidsOf: (runner: number) => readonly number[],
): Promise<Row> {
  const fleet = await ownFleet(own, '--sals', 'simulated', '--runners', '1');
  const runs = await SignedRuns.open(fleet);
  await holdRuns(fleet, runs);
  const [runner] = runnerPids(fleet.state);
  if (runner === undefined) throw new Error('no runner');
  const pids = pidsOf(runner);
  return { name, memoryMiB: round(pssMiB(pids)), floor: { name: `${RUNS} runs at once` } };
}

/** Resolves when all of them are past their first step. */
async function holdRuns(fleet: Fleet, runs: SignedRuns): Promise<void> {
  const held = await Promise.all(
    Array.from({ length: RUNS }, (_, index) => {
      const draft = { deployment: `bench-${index}`, generation: 1, source: WAITING };
      const envelope = runs.sign({ ...draft, caps: ['volume'], limits: LIMITS });
      return fleet.node.submit({ envelope });
    }),
  );
  await waitFor(
    async () => {
      const views = await Promise.all(held.map((each) => fleet.node.run(each.runs[0]?.run ?? '')));
      return views.every(({ steps }) => steps > 0);
    },
    { timeoutMs: WAIT_MS_MAX, what: 'all runs are under way' },
  );
}

export const runnerMemory: Budget = {
  goal: 'none: shown',
  isMet: () => true,
  measure: (own) => measureMemory(own, 'runner-memory', (runner) => [runner]),
};

export const sandboxMemory: Budget = {
  goal: 'none: shown',
  isMet: () => true,
  measure: (own) =>
    measureMemory(own, 'sandbox-memory', (runner) =>
      processTree(runner).filter((pid) => commandOf(pid).startsWith('hypha-sandbox')),
    ),
};
