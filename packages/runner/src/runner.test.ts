import { readFileSync } from 'node:fs';
import { HyphaError } from '@hypha/protocol';
import { expect, test, vi } from 'vitest';
import { NodeRig } from './testing/node-rig.ts';

const WAIT = { timeout: 20_000, interval: 20 };

const TWO_VOLUMES = `import { volume, log } from 'hypha';
export default async function deploy() {
  await volume('a', { size: 1 });
  log('half way');
  await volume('b', { size: 1 });
  return { both: true };
}`;

const MADE_ONCE = ['make a', 'finish a', 'make b', 'finish b'];
const UNDONE = ['make a', 'finish a', 'make b', 'undo b', 'undo a'];

async function committed(rig: NodeRig, run: string): Promise<void> {
  expect(await rig.untilOver(run)).toBe('committed');
}

/** A runner with a run whose step on this volume is half done. */
async function startHeld(rig: NodeRig, name: string, env: Readonly<Record<string, string>> = {}) {
  await rig.volumes.hold(name);
  const runner = await rig.startRunner(env);
  const run = await rig.submit(TWO_VOLUMES);
  return { runner, run, tool: await rig.untilHeld(name) };
}

async function expectTakenOver(rig: NodeRig, run: string): Promise<void> {
  await rig.takeOver(run);
  await committed(rig, run);
  expect(rig.volumes.effects()).toEqual(MADE_ONCE);
}

/** A killed process that nobody has waited for yet is dead. */
function isAlive(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}

test('takes a signed script from the queue to its commit', async () => {
  await using rig = await NodeRig.open();
  await rig.startRunner();
  const run = await rig.submit(TWO_VOLUMES);
  await committed(rig, run);
  const bodies = await rig.bodies(run);
  expect(bodies.map(({ type }) => type)).toEqual([
    'accepted',
    'started',
    'step-intent',
    'step-result',
    'log',
    'step-intent',
    'step-result',
    'committed',
  ]);
  expect(bodies.at(-1)).toMatchObject({
    output: '{"both":true}',
    desired: [{ name: 'a' }, { name: 'b' }],
  });
  expect(rig.volumes.effects()).toEqual(MADE_ONCE);
});

test('a runner killed in the middle of a step is fenced with its tool, and the next one makes nothing twice', async () => {
  await using rig = await NodeRig.open();
  const { runner, run, tool } = await startHeld(rig, 'b');
  runner.child.kill('SIGKILL');
  expect(await runner.exited).toBe('SIGKILL');
  expect(isAlive(tool)).toBe(true);
  await rig.fenceOff(runner);
  expect(isAlive(tool)).toBe(false);
  await expectTakenOver(rig, run);
  const bodies = await rig.bodies(run);
  expect(bodies.filter(({ type }) => type === 'step-intent').length).toBe(2);
  expect(bodies.filter(({ type }) => type === 'started').length).toBe(2);
});

test('a runner killed between an intent and its effect is resumed at that step', async () => {
  await using rig = await NodeRig.open();
  rig.onAppend = (_run, bodies) =>
    bodies.some((body) => body.type === 'step-intent' && body.step === 2);
  const first = await rig.startRunner();
  const run = await rig.submit(TWO_VOLUMES);
  await vi.waitFor(async () => {
    const intents = (await rig.bodies(run)).filter(({ type }) => type === 'step-intent');
    expect(intents.length).toBe(2);
  }, WAIT);
  first.child.kill('SIGKILL');
  await first.exited;
  await rig.fenceOff(first);
  expect(rig.volumes.effects()).toEqual(['make a', 'finish a']);
  rig.onAppend = () => false;
  await expectTakenOver(rig, run);
});

test('jobs that are stale, invented or malformed are dropped with an alarm', async () => {
  await using rig = await NodeRig.open();
  const runner = await rig.startRunner();
  await rig.addJob({ run: `run_${'a'.repeat(26)}`, epoch: 1 });
  await rig.addJob({ run: '../../etc', epoch: -1 });
  const run = await rig.submit(TWO_VOLUMES);
  await committed(rig, run);
  await rig.addJob({ run, epoch: 99 });
  const again = await rig.submit(TWO_VOLUMES, { deployment: 'other' });
  await committed(rig, again);
  const expected = [
    ['refused-job', `run_${'a'.repeat(26)}`],
    ['strange-job', undefined],
    ['refused-job', run],
  ];
  // They are looked at together, and may be logged in any order.
  const alarms = () => runner.lines.filter(({ alarm }) => alarm !== undefined);
  await vi.waitFor(() => expect(alarms()).toHaveLength(expected.length), WAIT);
  expect(alarms().map(({ alarm, run: of }) => [alarm, of])).toEqual(
    expect.arrayContaining(expected),
  );
});

test('a claim that is not granted costs the job, not the runner', async () => {
  await using rig = await NodeRig.open();
  const error = new HyphaError('E_UNAVAILABLE', 'the node has not enrolled');
  rig.refuseClaim = { after: false, error };
  const runner = await rig.startRunner();
  const run = await rig.submit(TWO_VOLUMES);
  await vi.waitFor(
    () =>
      expect(runner.lines).toContainEqual(
        expect.objectContaining({ msg: 'queue job dropped', run }),
      ),
    WAIT,
  );
  await rig.addJob({ run, epoch: await rig.epochOf(run) });
  await committed(rig, run);
});

test('a runner that may own a run it knows nothing of ends, so that it can be taken over', async () => {
  await using rig = await NodeRig.open();
  rig.refuseClaim = { after: true, error: new HyphaError('E_SAL', 'cannot make way') };
  const runner = await rig.startRunner();
  const run = await rig.submit(TWO_VOLUMES);
  expect(await runner.exited).toBe(1);
  await rig.takeOver(run);
  await committed(rig, run);
});

test('a run goes on and commits while Redis is gone, and the runner serves again when it is back', async () => {
  await using rig = await NodeRig.open();
  const { run, tool } = await startHeld(rig, 'a');
  await rig.redis.stop();
  process.kill(tool);
  await committed(rig, run);
  expect(rig.volumes.effects()).toEqual(MADE_ONCE);
  await rig.volumes.letGo('a');
  await rig.redis.start();
  const next = await rig.submit(TWO_VOLUMES, { deployment: 'other' });
  await committed(rig, next);
});

test('starts no step while its supervisor is away and goes on when that is back', async () => {
  await using rig = await NodeRig.open();
  const { run, tool } = await startHeld(rig, 'a');
  await rig.hangUp();
  process.kill(tool);
  await vi.waitFor(() => expect(rig.volumes.effects()).toContain('finish a'), WAIT);
  expect(rig.volumes.exists('b')).toBe(false);
  await rig.listen();
  await committed(rig, run);
  expect(rig.volumes.effects()).toEqual(MADE_ONCE);
});

test('ends with a failure when its supervisor stays away', async () => {
  await using rig = await NodeRig.open();
  const { runner } = await startHeld(rig, 'a');
  await rig.hangUp();
  expect(await runner.exited).toBe(1);
});

test('finishes the step in flight when told to stop, starts no other and exits 0', async () => {
  await using rig = await NodeRig.open();
  const { runner, run, tool } = await startHeld(rig, 'a');
  runner.child.kill('SIGTERM');
  process.kill(tool);
  expect(await runner.exited).toBe(0);
  expect(rig.volumes.effects()).toEqual(['make a', 'finish a']);
  expect((await rig.bodies(run)).slice(-2).map(({ type }) => type)).toEqual(['step-result', 'log']);
  await expectTakenOver(rig, run);
});

test('exits in good order when told to stop while Redis is gone', async () => {
  await using rig = await NodeRig.open();
  const runner = await rig.startRunner();
  await committed(rig, await rig.submit(TWO_VOLUMES));
  await rig.redis.stop();
  runner.child.kill('SIGTERM');
  expect(await runner.exited).toBe(0);
});

test('leaves a job to others when its supervisor drains it', async () => {
  await using rig = await NodeRig.open();
  // A free seat would take the other job before the notice is read.
  const { runner, run, tool } = await startHeld(rig, 'a', { HYPHA_RUNNER_CONCURRENCY: '1' });
  const waiting = await rig.submit(TWO_VOLUMES, { deployment: 'other' });
  rig.notify({ notice: 'drain' });
  process.kill(tool);
  expect(await runner.exited).toBe(0);
  expect(await rig.stateOf(waiting)).toBe('accepted');
  await rig.volumes.letGo('a');
  await rig.startRunner();
  await committed(rig, waiting);
  await rig.handOn(run);
  await committed(rig, run);
});

test('a cancelled run is undone and ends cancelled', async () => {
  await using rig = await NodeRig.open();
  const { run } = await startHeld(rig, 'b');
  rig.notify({ notice: 'cancel', run });
  expect(await rig.untilOver(run)).toBe('cancelled');
  expect(rig.volumes.exists('a')).toBe(false);
  expect(rig.volumes.effects()).toEqual(UNDONE);
});

test('a script error ends the run at its line, with everything undone', async () => {
  await using rig = await NodeRig.open();
  await rig.startRunner();
  const run = await rig.submit(`import { volume } from 'hypha';
export default async () => {
  await volume('a', { size: 1 });
  await volume('b', { size: 1, broken: true });
};`);
  await rig.untilOver(run);
  expect((await rig.bodies(run)).at(-1)).toMatchObject({
    type: 'finished',
    state: 'failed',
    problem: { code: 'E_SAL', detail: 'volume b broke', where: { line: 4, step: 2 } },
  });
  expect(rig.volumes.effects()).toEqual(UNDONE);
});

test('work signed by a key that was revoked since is rejected without a step', async () => {
  await using rig = await NodeRig.open();
  const run = await rig.submit(TWO_VOLUMES);
  rig.revokeOperator();
  await rig.startRunner();
  await rig.untilOver(run);
  expect((await rig.bodies(run)).map(({ type }) => type)).toEqual(['accepted', 'finished']);
  expect((await rig.bodies(run)).at(-1)).toMatchObject({
    state: 'rejected',
    problem: { code: 'E_KEY_REVOKED' },
  });
  expect(rig.volumes.effects()).toEqual([]);
});

test('work of a realm that the node does not serve is rejected without a step', async () => {
  await using rig = await NodeRig.open();
  rig.realms = ['other'];
  const run = await rig.submit(TWO_VOLUMES);
  await rig.startRunner();
  await rig.untilOver(run);
  expect((await rig.bodies(run)).at(-1)).toMatchObject({
    state: 'rejected',
    problem: { code: 'E_AUDIENCE' },
  });
  expect(rig.volumes.effects()).toEqual([]);
});

test('a run whose key is revoked in the middle starts no further step and is undone', async () => {
  await using rig = await NodeRig.open();
  const { runner, run } = await startHeld(rig, 'b');
  await rig.fenceOff(runner);
  await runner.exited;
  rig.revokeOperator();
  await rig.takeOver(run);
  expect(await rig.untilOver(run)).toBe('failed');
  expect(rig.volumes.exists('a')).toBe(false);
  expect(rig.volumes.effects()).toEqual(UNDONE);
});

test('the shipped process runs a script on the SALs of its node', async () => {
  await using rig = await NodeRig.open();
  const runner = await rig.startMain();
  const run = await rig.submit(TWO_VOLUMES);
  await committed(rig, run);
  const results = (await rig.bodies(run)).filter(({ type }) => type === 'step-result');
  expect(results).toMatchObject([
    { result: { name: 'a', simulated: true } },
    { result: { name: 'b', simulated: true } },
  ]);
  runner.child.kill('SIGTERM');
  expect(await runner.exited).toBe(0);
});

test('refuses a bad configuration with the key, the value and the reason', async () => {
  await using rig = await NodeRig.open();
  const runner = await rig.startRunner({ HYPHA_RUNNER_RUNNER: 'Not A Name' });
  expect(await runner.exited).toBe(78);
  expect(runner.lines[0]).toMatchObject({ msg: expect.stringMatching(/RUNNER: Not A Name: /) });
});
