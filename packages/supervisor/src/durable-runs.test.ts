/** Runs that share a runner, wait, plan and go on after their runner was stopped: every part a real process. */
import { expect, test } from 'vitest';
import { LIMITS } from './supervisor-limits.ts';
import { isAlive, nodeOfAllTests, until } from './testing/node-fixture.ts';

const SILENCE_MS = LIMITS.silenceMsMax + 2_000;
const SMALL = { resources: { milliCpus: 0, memoryBytes: 0, storageBytes: 10 } };

const fixture = await nodeOfAllTests({ runners: 2 });

async function startsOf(run: string): Promise<{ epoch: number; runner: string }[]> {
  return (await fixture.eventsOf(run)).flatMap(({ epoch, body }) =>
    body.type === 'started' ? [{ epoch, runner: body.runner }] : [],
  );
}

async function submitHeld(name: string): Promise<string> {
  await fixture.sals.hold(name);
  const envelope = fixture.sign(`await container('${name}', {}); return 1;`, {
    deployment: name,
    limits: SMALL,
  });
  const run = await fixture.submit(envelope);
  await fixture.untilHeld(name);
  return run;
}

const makes = (name: string) =>
  fixture.sals.effects().filter((effect) => effect === `make ${name}`);

test('a runner holds many runs: all of it are taken over when it dies, and no others', async () => {
  const names = Array.from({ length: 8 }, (_, index) => `many-${index}`);
  const runs: string[] = [];
  for (const name of names) runs.push(await submitHeld(name));
  const runners = (await Promise.all(runs.map(startsOf))).map(([start]) => start?.runner ?? '');
  expect(new Set(runners).size).toBeLessThanOrEqual(2);
  const [killed = ''] = runners;
  process.kill(await fixture.runnerPid(killed), 'SIGKILL');
  await fixture.sals.letGoAll();
  for (const [index, run] of runs.entries()) {
    expect(await fixture.waitForEnd(run)).toMatchObject({ state: 'succeeded' });
    const epochs = (await startsOf(run)).map(({ epoch }) => epoch);
    expect(epochs).toEqual(runners[index] === killed ? [1, 2] : [1]);
  }
  for (const name of names) expect(makes(name)).toHaveLength(1);
});

test('a runner that is stopped in the middle of a step is killed before its run goes on', async () => {
  const run = await submitHeld('stopped');
  const tool = fixture.sals.heldBy('stopped');
  const pid = await fixture.runnerPid((await startsOf(run))[0]?.runner ?? '');
  process.kill(pid, 'SIGSTOP');
  await until('it is fenced', () => fixture.supervisor.log.includes('with runs in hand'));
  await until('it is dead, and its tool', () => !isAlive(pid) && !isAlive(tool));
  // Nobody is there to go on; were somebody, this would let it.
  expect(() => process.kill(pid, 'SIGCONT')).toThrow('ESRCH');
  await fixture.sals.letGoAll();
  expect(await fixture.waitForEnd(run)).toMatchObject({ state: 'succeeded' });
  expect((await startsOf(run)).map(({ epoch }) => epoch)).toEqual([1, 2]);
  expect(makes('stopped')).toHaveLength(1);
});

test('a runner that was stopped for a moment goes on, though the queue gave its job to another', async () => {
  const run = await submitHeld('moment');
  const before = fixture.supervisor.log.length;
  const since = () => fixture.supervisor.log.slice(before);
  const pid = await fixture.runnerPid((await startsOf(run))[0]?.runner ?? '');
  process.kill(pid, 'SIGSTOP');
  await until('the other asks for the run', () => since().includes('stale queue job refused'));
  process.kill(pid, 'SIGCONT');
  await fixture.sals.letGoAll();
  expect(await fixture.waitForEnd(run)).toMatchObject({ state: 'succeeded' });
  expect((await startsOf(run)).map(({ epoch }) => epoch)).toEqual([1]);
  expect(makes('moment')).toHaveLength(1);
  expect(since()).not.toContain('"alarm":true');
});

test('a supervisor that was stopped itself blames no runner for the silence', async () => {
  const run = await submitHeld('pause');
  const before = fixture.supervisor.log.length;
  fixture.supervisor.child.kill('SIGSTOP');
  const stoppedAt = performance.now();
  await until('others would be silent', () => performance.now() - stoppedAt > SILENCE_MS);
  fixture.supervisor.child.kill('SIGCONT');
  await fixture.sals.letGoAll();
  expect(await fixture.waitForEnd(run)).toMatchObject({ state: 'succeeded' });
  expect((await startsOf(run)).map(({ epoch }) => epoch)).toEqual([1]);
  expect(fixture.supervisor.log.slice(before)).not.toContain('with runs in hand');
});

test('a run that sleeps is held by nobody, also through a crash, and goes on where it was', async () => {
  const run = await fixture.submit(
    fixture.sign(
      `const data = await volume('slept', {});
      const before = now();
      await sleep('6s');
      await container('awake', {});
      return now() - before;`,
      { deployment: 'sleeper', limits: SMALL },
    ),
  );
  let wakeAt = 0;
  await until('it waits', async () => {
    wakeAt = (await fixture.api.run(run)).waitingUntil ?? 0;
    return wakeAt > 0;
  });
  expect(fixture.sals.things()).toContain('slept');
  await fixture.supervisor.kill('SIGKILL');
  await fixture.startSupervisor();
  expect((await fixture.api.run(run)).waitingUntil).toBe(wakeAt);
  const view = await fixture.waitForEnd(run);
  expect(view).toMatchObject({ state: 'succeeded' });
  expect(view.waitingUntil).toBeUndefined();
  expect(view.endedAt ?? 0).toBeGreaterThanOrEqual(wakeAt);
  const { output } = await fixture.api.output(run);
  expect(output).toBeGreaterThanOrEqual(6_000);
  expect(makes('slept')).toHaveLength(1);
  expect((await startsOf(run)).map(({ epoch }) => epoch)).toEqual([1, 2]);
});

test('a plan says what would happen, does none of it, and takes no generation', async () => {
  const body = `await volume('planned', {}); return 1;`;
  const draft = { deployment: 'plans', limits: SMALL };
  const earlier = fixture.sign(body, draft);
  const planned = await fixture.submit(fixture.sign(body, { ...draft, mode: 'plan' }));
  expect(await fixture.waitForEnd(planned)).toMatchObject({ state: 'succeeded', mode: 'plan' });
  expect(await fixture.api.plan(planned)).toMatchObject({
    ...{ run: planned, state: 'complete', removals: [] },
    steps: [{ name: 'planned', action: 'create' }],
  });
  expect(fixture.sals.things()).not.toContain('planned');
  const run = await fixture.submit(earlier);
  expect(await fixture.waitForEnd(run)).toMatchObject({ state: 'succeeded' });
  expect(fixture.sals.things()).toContain('planned');
  expect((await fixture.api.plan(run)).steps).toMatchObject([{ name: 'planned' }]);
});

test('an apply that expects a plan is held to it, and is told what is planned otherwise now', async () => {
  const body = `await volume('expected', {}); return 1;`;
  const draft = { deployment: 'expects', limits: SMALL };
  const planned = await fixture.submit(fixture.sign(body, { ...draft, mode: 'plan' }));
  expect(await fixture.waitForEnd(planned)).toMatchObject({ state: 'succeeded' });
  const { hash, node } = await fixture.api.plan(planned);
  if (hash === undefined) throw new Error('the plan has no hash');
  const held = { ...draft, expect: { [node]: hash } };
  const first = await fixture.submit(fixture.sign(body, held));
  expect(await fixture.waitForEnd(first)).toMatchObject({ state: 'succeeded' });
  const again = await fixture.submit(fixture.sign(body, held));
  expect(await fixture.waitForEnd(again)).toMatchObject({
    state: 'failed',
    steps: 0,
    problem: {
      code: 'E_PLAN_CHANGED',
      details: {
        expected: hash,
        difference: [{ step: 1, was: { action: 'create' }, now: { action: 'no-op' } }],
      },
    },
  });
});

test('what a failed run kept is undone by a task', async () => {
  const draft = { deployment: 'kept', limits: SMALL };
  const failed = await fixture.submit(
    fixture.sign(`await container('kept', {}); throw new Error('no');`, {
      ...draft,
      onFailure: 'keep',
    }),
  );
  expect(await fixture.waitForEnd(failed)).toMatchObject({ state: 'failed' });
  expect(fixture.sals.things()).toContain('kept');
  const task = await fixture.submit(
    fixture.sign(`return await undo(input.run);`, {
      ...{ ...draft, mode: 'task', input: { run: failed } },
    }),
  );
  expect(await fixture.waitForEnd(task)).toMatchObject({ state: 'succeeded', mode: 'task' });
  expect(fixture.sals.things()).not.toContain('kept');
  expect(await fixture.receiptOf(task)).toMatchObject({
    state: 'succeeded',
    mode: 'task',
    leftovers: [],
  });
});
