import { JournalEvent } from '@hypha/protocol';
import { waitFor } from '@hypha/testkit';
import type { Fleet } from '../../test/fixtures/fleet.ts';
import { runnerPid } from '../../test/fixtures/node-world.ts';
import { SignedRuns } from '../../test/fixtures/signed-runs.ts';
import { type Budget, percentile } from './measure.ts';
import { ownFleet } from './own-fleet.ts';

const KILLS = 20;
/** Of one fleet: after each runner that does not last the next is started a little later. */
const KILLS_EACH = 5;
const RUNNERS = 2;
const CONNECTED_MS_MAX = 30_000;
const END_MS_MAX = 60_000;
const STEPS_BEFORE = 20;
/** Long enough to be caught in the middle. */
const LONG = `import { volume } from 'hypha';
export default async function deploy() {
  for (let i = 0; i < 500; i++) await volume('one', { size: 1 });
  return null;
}
`;
const LIMITS = {
  resources: { milliCpus: 0, memoryBytes: 0, storageBytes: 1 },
};

export const recovery: Budget = {
  goal: '≤ 500 ms, 0 repeated effects (peers elsewhere: Restate 590 ms, DBOS 1,290 ms, BullMQ 60 s)',
  isMet: ({ p50Ms = Number.POSITIVE_INFINITY }) => p50Ms <= 500,
  /** `kill -9` of the runner in mid-run → the run's next intent, on a node with two runners. */
  measure: async (own) => {
    const samples: number[] = [];
    while (samples.length < KILLS) samples.push(...(await killInFleet(own)));
    return { name: 'recovery', p50Ms: percentile(samples, 0.5), p99Ms: percentile(samples, 0.99) };
  },
};

/** A sample for each kill, in a fleet that is taken down again. */
async function killInFleet(own: AsyncDisposableStack): Promise<number[]> {
  await using mine = new AsyncDisposableStack();
  own.use(mine);
  const fleet = await ownFleet(mine, '--sals', 'simulated', '--runners', String(RUNNERS));
  const runs = await SignedRuns.open(fleet);
  const samples: number[] = [];
  for (let index = 0; index < KILLS_EACH; index++) {
    await waitFor(() => isStaffed(fleet), {
      timeoutMs: CONNECTED_MS_MAX,
      what: `${RUNNERS} runners`,
    });
    const draft = { deployment: `bench-${index}`, generation: 1, source: LONG };
    const envelope = runs.sign({ ...draft, caps: ['volume'], limits: LIMITS });
    const run = (await fleet.node.submit({ envelope })).runs[0]?.run ?? '';
    samples.push(await killInMidRun(runs, run, fleet.state));
  }
  return samples;
}

/** Both runners are there: what is measured is a takeover, not a start. */
async function isStaffed(fleet: Fleet): Promise<boolean> {
  const answer = await fetch(`${fleet.line.nodes[0]?.url}/metrics`);
  return (await answer.text()).includes(`\nhypha_runners_connected ${RUNNERS}\n`);
}

/** Milliseconds from the kill to the next intent. Waits for the run's end; throws when a step was repeated. */
async function killInMidRun(runs: SignedRuns, run: string, state: string): Promise<number> {
  const signal = AbortSignal.timeout(END_MS_MAX);
  let runner = '';
  let killed: { readonly atMs: number; readonly epoch: number } | undefined;
  let recoveredMs: number | undefined;
  let steps = 0;
  for await (const { data, event } of runs.node.runEvents(run, { signal })) {
    if (event === 'state') continue;
    const { body, epoch } = JournalEvent.parse(JSON.parse(data));
    if (body.type === 'started') runner = body.runner;
    if (body.type !== 'step-intent') continue;
    if (body.step !== steps + 1) throw new Error(`step ${body.step} came after step ${steps}`);
    steps = body.step;
    if (killed === undefined && steps > STEPS_BEFORE) {
      process.kill(runnerPid(state, runner), 'SIGKILL');
      killed = { atMs: performance.now(), epoch };
    } else if (killed !== undefined && epoch > killed.epoch) {
      recoveredMs ??= performance.now() - killed.atMs;
    }
  }
  if (recoveredMs === undefined) throw new Error(`${run} was not killed in the middle`);
  return recoveredMs;
}
