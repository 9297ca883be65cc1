import { HyphaError } from '@hypha/protocol';
import { expect, test, vi } from 'vitest';
import { NodeRig } from './testing/node-rig.ts';

const WAIT = { timeout: 40_000, interval: 20 };
const TIMEOUT = { timeout: 120_000 };

const twoVolumes = (name: string) => `import { volume } from 'hypha';
export default async () => {
  await volume('${name}', { size: 1 });
  await volume('${name}-too', { size: 1 });
};`;
const namesOf = (count: number) => Array.from({ length: count }, (_, n) => `v${n}`);

/** So that the node has room for all of them. */
const SMALL = { resources: { milliCpus: 100, memoryBytes: 1024, storageBytes: 1024 } };

/** A run for each name, in a deployment of its own. */
async function submitAll(rig: NodeRig, names: readonly string[]): Promise<string[]> {
  const runs = [];
  for (const name of names) {
    runs.push(await rig.submit(twoVolumes(name), { deployment: name, limits: SMALL }));
  }
  return runs;
}

async function holdAll(rig: NodeRig, names: readonly string[]): Promise<void> {
  for (const name of names) await rig.volumes.hold(name);
}

/** A runner with a run for each name, every one with its first step half done. */
async function startHeld(rig: NodeRig, names: readonly string[]) {
  await holdAll(rig, names);
  const runner = await rig.startRunner();
  const runs = await submitAll(rig, names);
  const tools = await Promise.all(names.map((name) => rig.untilHeld(name)));
  return { runner, runs, tools };
}

async function expectCommitted(rig: NodeRig, runs: readonly string[]): Promise<void> {
  for (const run of runs) expect(await rig.untilOver(run)).toBe('committed');
}

/** Every effect of every run happened, and none twice. */
function expectMadeOnce(rig: NodeRig, names: readonly string[]): void {
  const expected = names
    .flatMap((name) => [name, `${name}-too`])
    .flatMap((name) => [`make ${name}`, `finish ${name}`]);
  expect(rig.volumes.effects().toSorted()).toEqual(expected.toSorted());
}

async function expectTakenOver(rig: NodeRig, names: readonly string[], runs: readonly string[]) {
  await rig.takeOver(...runs);
  await expectCommitted(rig, runs);
  expectMadeOnce(rig, names);
}

test('sixteen runs are worked on at once, and no seventeenth', TIMEOUT, async () => {
  await using rig = await NodeRig.open();
  const names = namesOf(17);
  await holdAll(rig, names);
  const runs = await submitAll(rig, names);
  const runner = await rig.startRunner();
  const pids = await vi.waitFor(() => {
    const held = names.map((name) => rig.volumes.heldBy(name)).filter((pid) => pid !== undefined);
    expect(held).toHaveLength(16);
    return held;
  }, WAIT);
  const states = await Promise.all(runs.map((run) => rig.stateOf(run)));
  expect(states.toSorted()).toEqual(['accepted', ...Array(16).fill('running')]);
  await rig.volumes.letGoAll();
  for (const pid of pids) process.kill(pid);
  await expectCommitted(rig, runs);
  expectMadeOnce(rig, names);
  expect(runner.child.exitCode).toBeNull();
});

test(
  'a runner killed with several runs in the middle of a step makes nothing twice',
  TIMEOUT,
  async () => {
    await using rig = await NodeRig.open();
    const names = namesOf(4);
    const { runner, runs } = await startHeld(rig, names);
    runner.child.kill('SIGKILL');
    await runner.exited;
    await rig.fenceOff(runner);
    await expectTakenOver(rig, names, runs);
  },
);

test(
  'a run that loses its journal ends the process, and the others are taken over unharmed',
  TIMEOUT,
  async () => {
    await using rig = await NodeRig.open();
    const names = namesOf(3);
    const { runner, runs, tools } = await startHeld(rig, names);
    const [lost] = runs;
    rig.onAppend = (run) => {
      if (run === lost) throw new HyphaError('E_STALE_EPOCH', `${run} was given to another`);
      return false;
    };
    const [tool] = tools;
    process.kill(tool ?? 0);
    expect(await runner.exited).toBe(1);
    await rig.fenceOff(runner);
    rig.onAppend = () => false;
    await expectTakenOver(rig, names, runs);
  },
);

test(
  'told to stop, it finishes the steps in flight of all its runs, starts no other and exits 0',
  TIMEOUT,
  async () => {
    await using rig = await NodeRig.open();
    const names = namesOf(3);
    const { runner, runs, tools } = await startHeld(rig, names);
    runner.child.kill('SIGTERM');
    for (const tool of tools) process.kill(tool);
    expect(await runner.exited).toBe(0);
    const made = names.flatMap((name) => [`make ${name}`, `finish ${name}`]);
    expect(rig.volumes.effects().toSorted()).toEqual(made.toSorted());
    for (const run of runs) expect((await rig.bodies(run)).at(-1)?.type).toBe('step-result');
    await expectTakenOver(rig, names, runs);
  },
);

test(
  'a run that only waits is nobody’s until its time has come, and then goes on',
  TIMEOUT,
  async () => {
    await using rig = await NodeRig.open();
    await rig.startRunner();
    const run = await rig.submit(`import { now, sleep, volume } from 'hypha';
export default async () => {
  await volume('a', { size: 1 });
  const before = now();
  await sleep('4s');
  await volume('b', { size: 1 });
  return now() - before >= 4000;
};`);
    await vi.waitFor(() => expect([...rig.parked.keys()]).toEqual([run]), WAIT);
    expect(await rig.holderOf(run)).toBeNull();
    expect(await rig.stateOf(run)).toBe('running');
    expect(rig.volumes.effects()).toEqual(['make a', 'finish a']);
    await rig.wake(run);
    await expectCommitted(rig, [run]);
    expect((await rig.bodies(run)).at(-1)).toMatchObject({ type: 'committed', output: 'true' });
    expect(rig.volumes.effects()).toEqual(['make a', 'finish a', 'make b', 'finish b']);
  },
);

test('a run that was cancelled before it was claimed goes no way but back', TIMEOUT, async () => {
  await using rig = await NodeRig.open();
  const run = await rig.submit(twoVolumes('a'));
  rig.cancelled.add(run);
  await rig.startRunner();
  expect(await rig.untilOver(run)).toBe('cancelled');
  expect(rig.volumes.effects()).toEqual([]);
});

test(
  'a runner with a run in hand tells its supervisor again and again that it is there',
  TIMEOUT,
  async () => {
    await using rig = await NodeRig.open();
    await rig.volumes.hold('a');
    await rig.startRunner();
    await rig.submit(twoVolumes('a'));
    await vi.waitFor(() => expect(rig.beats).toBeGreaterThanOrEqual(2), WAIT);
  },
);

test(
  'a run whose neighbour took their sandbox host down goes on as if nothing had happened',
  TIMEOUT,
  async () => {
    await using rig = await NodeRig.open();
    const { runner, runs, tools } = await startHeld(rig, ['v0']);
    const [neighbour = ''] = runs;
    // In a builtin that no interrupt reaches: its host has to be killed.
    const stuck = await rig.submit(
      `import { volume } from 'hypha';
export default async () => {
  await volume('stuck', { size: 1 });
  Array.prototype.indexOf.call({ length: 2 ** 53 - 1 }, 1);
};`,
      { deployment: 'stuck', limits: { ...SMALL, cpuMs: 200 } },
    );
    expect(await rig.untilOver(stuck)).toBe('failed');
    expect((await rig.bodies(stuck)).at(-1)).toMatchObject({ problem: { code: 'E_CPU' } });
    for (const tool of tools) process.kill(tool);
    await expectCommitted(rig, runs);
    const displaced = { msg: 'call failed', run: neighbour, phase: 'guest' };
    expect(runner.lines).toContainEqual(expect.objectContaining(displaced));
    const started = (await rig.bodies(neighbour)).filter(({ type }) => type === 'started');
    expect(started).toHaveLength(1);
    expect(rig.volumes.effects().filter((effect) => !effect.endsWith('stuck'))).toEqual([
      ...['make v0', 'finish v0'],
      ...['make v0-too', 'finish v0-too'],
    ]);
    expect(rig.volumes.exists('stuck')).toBe(false);
  },
);
