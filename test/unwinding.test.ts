/** Runs that do not get to their commit, as an operator meets them: kept and undone later, or cancelled on the way. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { isTerminal, type RunView } from '@hypha/protocol';
import { waitFor } from '@hypha/testkit';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type CliResult, Fleet } from './fixtures/fleet.ts';

/** `poll` keeps its process for seconds, `sleep` has none for an hour. */
const SCRIPT = `import { log, sleep, volume } from 'hypha';
export const deployment = {
  name: 'web', input: { then: { type: 'string', default: 'return' } },
};
export default async function deploy({ then }) {
  await volume('data', { size: '16MiB' });
  await volume('cache', { size: '16MiB' });
  if (then === 'fail') throw new Error('on purpose');
  if (then === 'sleep') await sleep('1h');
  if (then === 'poll') for (let i = 0; i < 3000; i++) await sleep('200ms');
  log('after');
}
`;
const SMALL = ['--cpus', '0.1', '--memory', '32MiB', '--storage', '64MiB'];
const WAIT_MS_MAX = 30_000;

let fleet: Fleet;
let script: string;
beforeAll(async () => {
  fleet = await Fleet.start('--sals', 'simulated');
  script = join(fleet.state, 'web.ts');
  writeFileSync(script, SCRIPT);
});
afterAll(async () => fleet?.[Symbol.asyncDispose]());

const apply = (name: string, then: string, ...flags: string[]) =>
  fleet.hypha('apply', script, '--name', name, '-i', `then=${then}`, ...SMALL, ...flags);

function runIn({ stdout, stderr }: CliResult): string {
  const run = /run_[a-z2-7]{26}/.exec(stdout)?.[0];
  if (run === undefined) throw new Error(`no run in:\n${stdout}\n${stderr}`);
  return run;
}

async function resourcesOf(deployment: string): Promise<string[]> {
  const { items } = await fleet.node.listResources({ deployment });
  return items.map(({ kind, name, status }) => `${kind} ${name} ${status}`).sort();
}

/** As the coordinator tells it. */
function runOnce(run: string, what: string, is: (view: RunView) => boolean): Promise<RunView> {
  const look = async () => {
    const view = await fleet.coordinator.run(run);
    return is(view) ? view : undefined;
  };
  return waitFor(look, { timeoutMs: WAIT_MS_MAX, what });
}

/** Of the one node, as it last reported. */
async function freeMilliCpus(): Promise<number> {
  const [node] = (await fleet.coordinator.listNodes()).items;
  if (node === undefined) throw new Error('the fleet has no node');
  return node.free.milliCpus;
}

const KEPT = ['volume cache provisional', 'volume data provisional'];

test('a kept failure leaves what it made, says how to undo it, and is undone once', async () => {
  const failed = await apply('kept', 'fail', '--on-failure', 'keep');
  expect(failed).toMatchObject({ code: 1, stdout: expect.stringContaining('E_SCRIPT') });
  expect(failed.stdout).toContain('left over: volume data: kept');
  const run = runIn(failed);
  expect(failed.stderr).toContain(`undo it with: hypha run undo ${run}\n`);
  expect(await resourcesOf('kept')).toEqual(KEPT);
  const undone = await fleet.hypha('run', 'undo', run);
  expect(undone).toMatchObject({ code: 0, stdout: expect.stringContaining('undone: 2 steps') });
  expect(await resourcesOf('kept')).toEqual([]);
  const again = await fleet.hypha('run', 'undo', run, '-o', 'json');
  expect(again).toMatchObject({ code: 0, stderr: expect.stringContaining('nothing was left') });
  expect(JSON.parse(again.stdout)).toMatchObject({ undone: 0, leftovers: [] });
});

test('a kept failure is taken up by the next apply, after which it is too late to undo it', async () => {
  // It holds all that the node has to give, which no other deployment gets.
  const free = await freeMilliCpus();
  const all = ['--cpus', String(free / 1000)];
  const failed = await apply('taken', 'fail', '--on-failure', 'keep', ...all, '-o', 'json');
  expect(failed.code).toBe(1);
  const { run, ...view } = JSON.parse(failed.stdout);
  expect(view).toMatchObject({ state: 'failed', problem: { code: 'E_SCRIPT' }, output: null });
  await waitFor(async () => (await freeMilliCpus()) < free, {
    timeoutMs: WAIT_MS_MAX,
    what: 'the node reports what is kept',
  });
  const other = await apply('another', 'return', ...all);
  expect(other).toMatchObject({ code: 3, stderr: expect.stringContaining('E_NO_PLACEMENT') });
  const next = await apply('taken', 'return', ...all, '-o', 'json');
  expect(next, next.stderr).toMatchObject({ code: 0 });
  const [late, committed] = await Promise.all([
    fleet.hypha('run', 'undo', run),
    fleet.hypha('run', 'undo', JSON.parse(next.stdout).run),
  ]);
  expect(late).toMatchObject({ code: 1, stdout: expect.stringContaining('E_TOO_LATE') });
  expect(committed).toMatchObject({ code: 4, stderr: expect.stringContaining('hypha destroy') });
  const kept = ['volume cache committed', 'volume data committed'];
  expect(await resourcesOf('taken')).toEqual(kept);
});

test('a run that works is cancelled while its apply looks on', async () => {
  const applying = apply('working', 'poll', '--deadline', '1h');
  const { run } = await waitFor(
    async () => (await fleet.coordinator.listRuns({ deployment: 'working' })).items[0],
    { timeoutMs: WAIT_MS_MAX, what: 'the run is accepted' },
  );
  const view = await runOnce(run, 'it polls', ({ steps }) => steps >= 3);
  expect(view).toMatchObject({ state: 'running' });
  expect(view.waitingUntil).toBeUndefined();
  const cancelled = await fleet.hypha('run', 'cancel', run);
  expect(cancelled, cancelled.stderr).toMatchObject({ code: 0 });
  expect(cancelled.stdout).toMatch(/^cancelled \(simulated\), 2 steps undone$/m);
  const applied = await applying;
  expect(applied).toMatchObject({ code: 1, stdout: expect.stringContaining('E_CANCELLED') });
  expect(applied.stdout).not.toContain('log');
  expect(await resourcesOf('working')).toEqual([]);
  const late = await fleet.hypha('run', 'cancel', run, '-o', 'json');
  expect(late).toMatchObject({ code: 0, stderr: expect.stringContaining('cancelled before') });
  expect(JSON.parse(late.stdout)).toMatchObject({ run, state: 'cancelled' });
});

test('a run that sleeps, held by nobody, says until when and is cancelled at once', async () => {
  const detached = await apply('asleep', 'sleep', '--deadline', '2h', '--detach');
  expect(detached, detached.stderr).toMatchObject({ code: 0 });
  const run = runIn(detached);
  const { waitingUntil } = await runOnce(
    run,
    'it sleeps',
    (view) => view.waitingUntil !== undefined,
  );
  expect(waitingUntil).toBeGreaterThan(Date.now() + 50 * 60_000);
  await waitFor(async () => (await fleet.node.run(run)).waitingUntil === waitingUntil, {
    timeoutMs: WAIT_MS_MAX,
    what: 'its node lets go of it',
  });
  const [shown, listed] = await Promise.all([
    fleet.hypha('run', 'show', run),
    fleet.hypha('run', 'list', '--deployment', 'asleep'),
  ]);
  const until = new Date(waitingUntil ?? 0).toISOString();
  expect(shown.stdout).toContain(`waits until: ${until}`);
  expect(listed.stdout).toContain(`waits until ${until}`);
  const cancelled = await fleet.hypha('run', 'cancel', run, '-o', 'json');
  expect(cancelled, cancelled.stderr).toMatchObject({ code: 0 });
  const ended = JSON.parse(cancelled.stdout);
  expect(ended).toMatchObject({ state: 'cancelled', problem: { code: 'E_CANCELLED' } });
  expect(ended.waitingUntil).toBeUndefined();
  expect(await resourcesOf('asleep')).toEqual([]);
});

test('what has committed cannot be cancelled, and a revision can', async () => {
  const done = await apply('done', 'return', '-o', 'json');
  const sleeping = await apply('revised', 'sleep', '--deadline', '2h', '--detach', '-o', 'json');
  const { revision, runs } = JSON.parse(sleeping.stdout);
  const [late, unknown, whole] = await Promise.all([
    fleet.hypha('run', 'cancel', JSON.parse(done.stdout).run),
    fleet.hypha('run', 'cancel', `run_${'a'.repeat(26)}`),
    fleet.hypha('run', 'cancel', revision, '--detach'),
  ]);
  expect(late).toMatchObject({ code: 3, stderr: expect.stringContaining('E_TOO_LATE') });
  expect(unknown).toMatchObject({ code: 4 });
  expect(whole, whole.stderr).toMatchObject({ code: 0 });
  const { state } = await runOnce(runs[0].run, 'it ends', (view) => isTerminal(view.state));
  expect(state).toBe('cancelled');
});
