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

/** Process ids of the tools, once each name's step is half done. */
async function allHeld(rig: NodeRig, names: readonly string[]): Promise<number[]> {
  return await vi.waitFor(() => {
    const pids = names.map((name) => rig.volumes.heldBy(name));
    const held = pids.filter((pid) => pid !== undefined);
    if (held.length < names.length) throw new Error(`${held.length} steps are half done`);
    return held;
  }, WAIT);
}

async function allCommitted(rig: NodeRig, runs: readonly string[]): Promise<void> {
  for (const run of runs) {
    await vi.waitFor(async () => expect(await rig.stateOf(run)).toBe('committed'), WAIT);
  }
}

/** Every effect of every run happened, and none twice. */
function expectMadeOnce(rig: NodeRig, names: readonly string[]): void {
  const expected = names
    .flatMap((name) => [name, `${name}-too`])
    .flatMap((name) => [`make ${name}`, `finish ${name}`]);
  expect(rig.volumes.effects().toSorted()).toEqual(expected.toSorted());
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
  await Promise.all(names.map((name) => rig.volumes.letGo(name)));
  for (const pid of pids) process.kill(pid);
  await allCommitted(rig, runs);
  expectMadeOnce(rig, names);
  expect(runner.child.exitCode).toBeNull();
});

test(
  'a runner killed with several runs in the middle of a step makes nothing twice',
  TIMEOUT,
  async () => {
    await using rig = await NodeRig.open();
    const names = namesOf(4);
    await holdAll(rig, names);
    const first = await rig.startRunner();
    const runs = await submitAll(rig, names);
    await allHeld(rig, names);
    first.child.kill('SIGKILL');
    await first.exited;
    await rig.fenceOff(first);
    for (const name of names) await rig.volumes.letGo(name);
    for (const run of runs) await rig.handOn(run);
    await rig.startRunner();
    await allCommitted(rig, runs);
    expectMadeOnce(rig, names);
  },
);

test(
  'a run that loses its journal ends the process, and the others are taken over unharmed',
  TIMEOUT,
  async () => {
    await using rig = await NodeRig.open();
    const names = namesOf(3);
    await holdAll(rig, names);
    const runner = await rig.startRunner();
    const runs = await submitAll(rig, names);
    const pids = await allHeld(rig, names);
    const [lost] = runs;
    rig.onAppend = (run) => {
      if (run === lost) throw new HyphaError('E_STALE_EPOCH', `${run} was given to another`);
      return false;
    };
    const [tool] = pids;
    process.kill(tool ?? 0);
    expect(await runner.exited).toBe(1);
    await rig.fenceOff(runner);
    rig.onAppend = () => false;
    for (const name of names) await rig.volumes.letGo(name);
    for (const run of runs) await rig.handOn(run);
    await rig.startRunner();
    await allCommitted(rig, runs);
    expectMadeOnce(rig, names);
  },
);

test(
  'told to stop, it finishes the steps in flight of all its runs, starts no other and exits 0',
  TIMEOUT,
  async () => {
    await using rig = await NodeRig.open();
    const names = namesOf(3);
    await holdAll(rig, names);
    const first = await rig.startRunner();
    const runs = await submitAll(rig, names);
    const pids = await allHeld(rig, names);
    first.child.kill('SIGTERM');
    for (const pid of pids) process.kill(pid);
    expect(await first.exited).toBe(0);
    const made = names.flatMap((name) => [`make ${name}`, `finish ${name}`]);
    expect(rig.volumes.effects().toSorted()).toEqual(made.toSorted());
    for (const run of runs) expect((await rig.bodies(run)).at(-1)?.type).toBe('step-result');
    for (const name of names) await rig.volumes.letGo(name);
    for (const run of runs) await rig.handOn(run);
    await rig.startRunner();
    await allCommitted(rig, runs);
    expectMadeOnce(rig, names);
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
    await allCommitted(rig, [run]);
    expect((await rig.bodies(run)).at(-1)).toMatchObject({ type: 'committed', output: 'true' });
    expect(rig.volumes.effects()).toEqual(['make a', 'finish a', 'make b', 'finish b']);
  },
);

test('a run that was cancelled before it was claimed goes no way but back', TIMEOUT, async () => {
  await using rig = await NodeRig.open();
  const run = await rig.submit(twoVolumes('a'));
  rig.cancelled.add(run);
  await rig.startRunner();
  await vi.waitFor(async () => expect(await rig.stateOf(run)).toBe('cancelled'), WAIT);
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
    await rig.volumes.hold('v0');
    const runner = await rig.startRunner();
    const [neighbour = ''] = await submitAll(rig, ['v0']);
    const [tool] = await allHeld(rig, ['v0']);
    // In a builtin that no interrupt reaches: its host has to be killed.
    const stuck = await rig.submit(
      `import { volume } from 'hypha';
export default async () => {
  await volume('stuck', { size: 1 });
  Array.prototype.indexOf.call({ length: 2 ** 53 - 1 }, 1);
};`,
      { deployment: 'stuck', limits: { ...SMALL, cpuMs: 200 } },
    );
    await vi.waitFor(async () => expect(await rig.stateOf(stuck)).toBe('failed'), WAIT);
    expect((await rig.bodies(stuck)).at(-1)).toMatchObject({ problem: { code: 'E_CPU' } });
    process.kill(tool ?? 0);
    await allCommitted(rig, [neighbour]);
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
