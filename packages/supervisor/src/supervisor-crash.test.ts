/** What a node goes through, with every part a real process (issue: "Crash checks"). */
import { detectCgroups } from '@hypha/sal';
import { Queue } from 'bullmq';
import { expect, test } from 'vitest';
import { isAlive, nodeOfAllTests, until } from './testing/node-fixture.ts';

const { cgroup2 } = await detectCgroups();
const fixture = await nodeOfAllTests();

const makes = (name: string) => fixture.sals.effects().filter((each) => each === `make ${name}`);
const script = (name: string) => `await container('${name}', {}); return '${name}';`;

async function submitHeld(name: string): Promise<{ run: string; tool: number }> {
  await fixture.sals.hold(name);
  const run = await fixture.submit(fixture.sign(script(name), { deployment: name }));
  return { run, tool: await fixture.untilHeld(name) };
}

async function epochsOf(run: string): Promise<number[]> {
  const events = await fixture.eventsOf(run);
  return [...new Set(events.map(({ epoch }) => epoch))].filter((epoch) => epoch > 0);
}

test('a supervisor killed after its 202 has the run when it is back', async () => {
  const envelope = fixture.sign(script('kept'), { deployment: 'kept' });
  const run = await fixture.submit(envelope);
  await fixture.supervisor.kill('SIGKILL');
  await fixture.startSupervisor();
  expect(await fixture.waitForEnd(run)).toMatchObject({ state: 'succeeded' });
  expect(makes('kept')).toHaveLength(1);
  const again = await fixture.api.submit({ envelope });
  expect(again).toMatchObject({ existing: true, runs: [{ run }] });
});

test('a runner goes on under its epoch when the supervisor was killed in the middle of a step', async () => {
  const { run, tool } = await submitHeld('through');
  await fixture.supervisor.kill('SIGKILL');
  expect(isAlive(tool)).toBe(true);
  await fixture.startSupervisor();
  await until('the runner is back', () =>
    fixture.supervisor.log.includes('came back with its run'),
  );
  await fixture.sals.letGo('through');
  expect(await fixture.waitForEnd(run)).toMatchObject({ state: 'succeeded' });
  expect(await epochsOf(run)).toEqual([1]);
  expect(makes('through')).toHaveLength(1);
});

test('a runner killed in the middle of a step takes its tool along and the run is taken over at once', async () => {
  const { run, tool } = await submitHeld('taken');
  const pid = await fixture.runnerPid(await fixture.runnerOf(run));
  process.kill(pid, 'SIGKILL');
  await until('its tool is dead', () => !isAlive(tool));
  await fixture.sals.letGo('taken');
  expect(await fixture.waitForEnd(run)).toMatchObject({ state: 'succeeded' });
  expect(await epochsOf(run)).toEqual([1, 2]);
  expect(makes('taken')).toHaveLength(1);
});

test('a supervisor and its runner killed together leave a run that is finished by the next ones', async (context) => {
  // By its process group alone a tool is not found once the runner, its leader, is dead.
  if (cgroup2 === undefined) context.skip('needs root and cgroup v2');
  const { run, tool } = await submitHeld('both');
  const pid = await fixture.runnerPid(await fixture.runnerOf(run));
  await fixture.supervisor.kill('SIGKILL');
  process.kill(pid, 'SIGKILL');
  await fixture.sals.letGo('both');
  await fixture.startSupervisor();
  expect(await fixture.waitForEnd(run)).toMatchObject({ state: 'succeeded' });
  await until('its tool is dead', () => !isAlive(tool));
  expect(await epochsOf(run)).toEqual([1, 2]);
  expect(makes('both')).toHaveLength(1);
});

test('Redis stopped in the middle of a run and wiped delays and loses nothing', async () => {
  const { run } = await submitHeld('redis-1');
  const waiting = await fixture.submit(fixture.sign(script('redis-2'), { deployment: 'redis-2' }));
  await fixture.stopRedis();
  const late = await fixture.submit(fixture.sign(script('redis-3'), { deployment: 'redis-3' }));
  await fixture.sals.letGo('redis-1');
  expect(await fixture.waitForEnd(run)).toMatchObject({ state: 'succeeded' });
  await fixture.startRedis();
  for (const each of [waiting, late]) {
    expect(await fixture.waitForEnd(each)).toMatchObject({ state: 'succeeded' });
  }
  for (const name of ['redis-1', 'redis-2', 'redis-3']) expect(makes(name)).toHaveLength(1);
});

test('a supervisor that starts without Redis works as soon as that is there', async () => {
  await fixture.stopRedis();
  await fixture.supervisor.kill('SIGTERM');
  await fixture.startSupervisor();
  const run = await fixture.submit(fixture.sign(script('early'), { deployment: 'early' }));
  await fixture.startRedis();
  expect(await fixture.waitForEnd(run)).toMatchObject({ state: 'succeeded' });
  expect(makes('early')).toHaveLength(1);
});

test('a run goes on where it was when its supervisor is told to stop in the middle of a step', async () => {
  const { run, tool } = await submitHeld('drained');
  const stopped = fixture.supervisor.kill('SIGTERM');
  await fixture.sals.letGo('drained');
  await stopped;
  expect(isAlive(tool)).toBe(false);
  await fixture.startSupervisor();
  expect(await fixture.waitForEnd(run)).toMatchObject({ state: 'succeeded' });
  expect(makes('drained')).toHaveLength(1);
});

test('a wiped Redis with accepted runs waiting is filled again', async () => {
  const { run } = await submitHeld('wiped-1');
  const waiting = await fixture.submit(fixture.sign(script('wiped-2'), { deployment: 'wiped-2' }));
  await fixture.redis((redis) => redis.flushall());
  await fixture.sals.letGo('wiped-1');
  expect(await fixture.waitForEnd(run)).toMatchObject({ state: 'succeeded' });
  expect(await fixture.waitForEnd(waiting)).toMatchObject({ state: 'succeeded' });
  expect(makes('wiped-1')).toHaveLength(1);
  expect(makes('wiped-2')).toHaveLength(1);
});

test('with ledger and coordinator gone a run goes on, and its receipt arrives later', async () => {
  const { run } = await submitHeld('alone');
  await fixture.stopFleet();
  await fixture.sals.letGo('alone');
  expect(await fixture.waitForEnd(run)).toMatchObject({ state: 'succeeded' });
  const here = await fixture.submit(fixture.sign(script('alone-2'), { deployment: 'alone-2' }));
  expect(await fixture.waitForEnd(here)).toMatchObject({ state: 'succeeded' });
  await fixture.supervisor.kill('SIGKILL');
  await fixture.startSupervisor();
  await fixture.startLedger();
  await fixture.startCoordinator();
  for (const each of [run, here]) {
    await until('coordinator and ledger have the receipt', async () => {
      const { items } = await fixture.ledger.listEntries({ kind: 'receipt', run: each });
      const receipt = await fixture.coordinator.receipt(each).catch(() => undefined);
      return items.length === 1 && receipt !== undefined;
    });
    expect(await fixture.coordinator.run(each)).toMatchObject({ state: 'succeeded' });
  }
});

test('a job that nobody here queued is refused and an alarm is logged', async () => {
  const done = await fixture.submit(fixture.sign(script('forged'), { deployment: 'forged' }));
  await fixture.waitForEnd(done);
  const queue = new Queue('runs', {
    connection: { path: fixture.redisSocket },
    prefix: fixture.queuePrefix,
  });
  try {
    const unknown = `run_${'a'.repeat(26)}`;
    await queue.add('run', { run: unknown, epoch: 1 });
    await queue.add('run', { run: done, epoch: 7 });
    await until('both are refused', () => {
      const refused = fixture.supervisor.log
        .split('\n')
        .filter((line) => line.includes('"alarm":true'));
      return [unknown, done].every((run) => refused.some((line) => line.includes(run)));
    });
  } finally {
    await queue.close();
  }
  // Whatever happened above, no role wanted more of Redis than it is given.
  expect(await fixture.redis((redis) => redis.call('ACL', 'LOG'))).toEqual([]);
  expect(makes('forged')).toHaveLength(1);
  const after = await fixture.submit(fixture.sign(script('after'), { deployment: 'after' }));
  expect(await fixture.waitForEnd(after)).toMatchObject({ state: 'succeeded' });
});
