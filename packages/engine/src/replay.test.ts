import { describe, expect, test } from 'vitest';
import { SagaRig } from './testing/saga-rig.ts';
import type { Script } from './testing/scripted-guest.ts';

describe('replay', () => {
  test('shows both sides when the script takes another path', async () => {
    const rig = new SagaRig(async ({ call }) => {
      await call('box.ensure', 'a', { size: 1 });
      await call('box.ensure', 'b');
    });
    await rig.crashAt('apply begins b');
    rig.script = async ({ call }) => await call('box.ensure', 'a', { size: 2 });
    const outcome = await rig.run();
    expect(outcome).toMatchObject({
      state: 'failed',
      problem: {
        code: 'E_NONDETERMINISM',
        where: { step: 1 },
        details: { recorded: { args: { size: 1 } }, made: { args: { size: 2 } } },
      },
    });
    expect(rig.world.snapshot()).toEqual({});
  });

  test('goes on after any append of a script that only reads', async () => {
    const script: Script = async ({ call, log }) => {
      log('begins');
      const seen = [];
      for (let look = 0; look < 120; look++) seen.push(await call('box.peek', 'a'));
      return seen.length;
    };
    const { points } = await new SagaRig(script).runWithCrashes([]);
    // What waits is bounded, so there are appends between the first and the last.
    expect(points.filter((point) => point.startsWith('after append')).length).toBe(3);
    for (const at of points.keys()) {
      const rig = new SagaRig(script);
      const { outcome } = await rig.runWithCrashes([at + 1]);
      expect(outcome).toEqual({ state: 'committed', output: '120' });
      expect(rig.bodiesOf('step-result').length).toBe(120);
    }
  });

  test('holds the script to a step that has no outcome yet', async () => {
    const rig = new SagaRig(async ({ call }) => await call('box.ensure', 'a', { size: 1 }));
    await rig.crashAt('apply half done a');
    rig.script = async ({ call }) => await call('box.ensure', 'a', { size: 2 });
    expect(await rig.run()).toMatchObject({ problem: { code: 'E_NONDETERMINISM' } });
    expect(rig.world.snapshot()).toEqual({});
  });

  test('notices a script that ends before a step on record', async () => {
    const rig = new SagaRig(async ({ call }) => {
      await call('box.ensure', 'a');
      await call('box.ensure', 'b');
    });
    await rig.crashAt('apply begins b');
    rig.script = async () => 'nothing to do';
    expect(await rig.run()).toMatchObject({
      state: 'failed',
      problem: { code: 'E_NONDETERMINISM', where: { step: 1 } },
    });
    expect(rig.world.snapshot()).toEqual({});
  });

  test('notices a script that ends before a step that was only begun', async () => {
    const rig = new SagaRig(async ({ call }) => {
      await call('box.ensure', 'a');
      await call('box.ensure', 'b');
    });
    await rig.crashAt('apply half done b');
    rig.script = async ({ call }) => await call('box.ensure', 'a');
    expect(await rig.run()).toMatchObject({
      state: 'failed',
      problem: { code: 'E_NONDETERMINISM', where: { step: 2 } },
    });
    expect(rig.world.snapshot()).toEqual({});
  });

  test('notices a script that fails before a step on record', async () => {
    const rig = new SagaRig(async ({ call }) => {
      await call('box.ensure', 'a');
      await call('box.ensure', 'b');
    });
    await rig.crashAt('apply begins b');
    rig.script = async () => {
      throw new Error('only now');
    };
    expect(await rig.run()).toMatchObject({
      state: 'failed',
      problem: { code: 'E_NONDETERMINISM', where: { step: 1 } },
    });
  });

  test('gives the script the clock of its first start', async () => {
    const rig = new SagaRig(async ({ call, program }) => {
      await call('box.ensure', 'a');
      return program.nowMs;
    });
    const startedAt = rig.clock.nowMs();
    await rig.crashAt('apply done a');
    rig.clock.advance(60_000);
    expect(await rig.run()).toEqual({ state: 'committed', output: String(startedAt) });
  });

  test('does not apply again what the probe finds done', async () => {
    const rig = new SagaRig(async ({ call }) => {
      await call('box.ensure', 'a');
      return await call('box.paint', 'a', { colour: 'red' });
    });
    await rig.crashAt('paint done a');
    const applied: number[] = [];
    rig.world.onApply = ({ step }) => void applied.push(step);
    expect(await rig.run()).toEqual({ state: 'committed', output: '"red"' });
    expect(applied).toEqual([]);
    expect(rig.bodiesOf('step-result').length).toBe(2);
  });

  test('applies again from the recorded before-image what the probe finds half done', async () => {
    const rig = new SagaRig(async ({ call }) => {
      await call('box.ensure', 'a', { size: 3 });
      throw new Error('boom');
    });
    await rig.crashAt('apply half done a');
    expect((await rig.run()).state).toBe('failed');
    expect(rig.world.effects).toEqual(['create a', 'size a 3', 'delete a']);
    expect(rig.bodiesOf('step-intent')).toMatchObject([{ action: 'create', before: null }]);
  });

  test('never repeats a call that cannot be probed', async () => {
    const rig = new SagaRig(async ({ call }) => {
      await call('box.ensure', 'a');
      await call('box.run', 'a');
    });
    await rig.crashAt('run done a');
    expect(await rig.run()).toMatchObject({
      state: 'failed',
      problem: { code: 'E_UNKNOWN_OUTCOME', where: { step: 2 } },
    });
    expect(rig.world.count('run a')).toBe(1);
  });

  test('repeats such a call when it was declared idempotent', async () => {
    const rig = new SagaRig(async ({ call }) => {
      await call('box.ensure', 'a');
      return await call('box.run', 'a', { idempotent: true });
    });
    await rig.crashAt('run done a');
    expect(await rig.run()).toEqual({ state: 'committed', output: '2' });
  });

  test('keeps what became of such a call before anything else happens', async () => {
    const rig = new SagaRig(async ({ call }) => {
      await call('box.ensure', 'a');
      await call('box.run', 'a');
      await call('box.ensure', 'b');
    });
    await rig.crashAt('plan b');
    expect((await rig.run()).state).toBe('committed');
    expect(rig.world.count('run a')).toBe(1);
  });

  test('waits for a machine that cannot start a guest now', async () => {
    const rig = new SagaRig(async ({ call }) => await call('box.ensure', 'a'));
    rig.guestRefusals = 3;
    expect((await rig.run()).state).toBe('committed');
    expect(rig.faults.map(({ phase, attempt }) => [phase, attempt])).toEqual([
      ['guest', 1],
      ['guest', 2],
      ['guest', 3],
    ]);
  });

  test('fails the run when no guest can be started', async () => {
    const rig = new SagaRig(async ({ call }) => await call('box.ensure', 'a'));
    rig.guestRefusals = 1_000;
    expect(await rig.run()).toMatchObject({ state: 'failed', problem: { code: 'E_UNAVAILABLE' } });
  });
});
