import { HyphaError } from '@hypha/protocol';
import { describe, expect, test } from 'vitest';
import { SagaRig } from './testing/saga-rig.ts';

describe('stopping', () => {
  test('starts no further step once cancelled, undoes, and is cancelled', async () => {
    const rig = new SagaRig(async ({ call }) => {
      await call('box.ensure', 'a');
      await call('box.ensure', 'b');
      await call('box.ensure', 'c');
    });
    rig.world.onApply = ({ step }) => {
      if (step === 2) rig.cancel.abort();
    };
    expect(await rig.run()).toMatchObject({
      state: 'cancelled',
      problem: { code: 'E_CANCELLED' },
    });
    expect(rig.bodiesOf('step-intent').map(({ step }) => step)).toEqual([1, 2]);
    expect(rig.world.snapshot()).toEqual({});
    expect(rig.world.count('create b')).toBe(0);
  });

  test('ends for the reason it was stopped for: a key that was taken back', async () => {
    const rig = new SagaRig(async ({ call }) => {
      await call('box.ensure', 'a');
      await call('box.ensure', 'b');
      await call('box.ensure', 'c');
    });
    rig.world.onApply = ({ step }) => {
      if (step === 2) rig.cancel.abort(new HyphaError('E_KEY_REVOKED', 'key olivia was revoked'));
    };
    expect(await rig.run()).toMatchObject({
      state: 'failed',
      problem: { code: 'E_KEY_REVOKED' },
    });
    expect(rig.bodiesOf('step-intent').map(({ step }) => step)).toEqual([1, 2]);
    expect(rig.world.snapshot()).toEqual({});
  });

  test.for(['E_KEY_REVOKED', 'E_SCOPE', 'E_SIG_THRESHOLD', 'E_AUDIENCE'] as const)(
    'undoes what it did when the journal does not let it go on for %s',
    async (code) => {
      const rig = new SagaRig(async ({ call }) => {
        await call('box.ensure', 'a');
        await call('box.ensure', 'b');
      });
      const error = new HyphaError(code, 'the authority took it back');
      rig.journal.refuseNext = { type: 'committed', error };
      expect(await rig.run()).toMatchObject({ state: 'failed', problem: { code } });
      expect(rig.world.snapshot()).toEqual({});
    },
  );

  test('is cancelled without a guest when the cancel came first', async () => {
    const rig = new SagaRig(async () => null);
    rig.cancel.abort();
    expect(await rig.run()).toMatchObject({ state: 'cancelled' });
    expect(rig.guests.length).toBe(0);
    expect(rig.journal.bodies().map((body) => body.type)).toEqual(['finished']);
  });

  test('takes a refused commit of the journal as the cancel it is', async () => {
    const rig = new SagaRig(async ({ call }) => await call('box.ensure', 'a'));
    const error = new HyphaError('E_CANCELLED', 'the run was cancelled');
    rig.journal.refuseNext = { type: 'committed', error };
    expect(await rig.run()).toMatchObject({ state: 'cancelled' });
    expect(rig.bodiesOf('committed')).toEqual([]);
    expect(rig.world.snapshot()).toEqual({});
    expect(rig.bodiesOf('step-result').length).toBe(1);
  });

  test('keeps what is durable when the journal refuses the rest', async () => {
    const rig = new SagaRig(async ({ call, log }) => {
      await call('box.ensure', 'a');
      log('looking');
      await call('box.peek', 'a');
    });
    const error = new HyphaError('E_OUTPUT', 'the journal is full');
    rig.journal.refuseNext = { type: 'committed', error };
    expect(await rig.run()).toMatchObject({ state: 'failed', problem: { code: 'E_OUTPUT' } });
    expect(rig.bodiesOf('step-intent').map(({ step }) => step)).toEqual([1]);
    expect(rig.bodiesOf('step-result').map(({ step }) => step)).toEqual([1]);
    expect(rig.world.snapshot()).toEqual({});
  });

  test('writes no intent for a step whose plan a cancel overtook', async () => {
    const rig = new SagaRig(async ({ call }) => await call('box.ensure', 'a'));
    rig.world.onPlan = () => rig.cancel.abort();
    expect((await rig.run()).state).toBe('cancelled');
    expect(rig.bodiesOf('step-intent')).toEqual([]);
  });

  test('ends at the deadline, counted from the first start', async () => {
    const rig = new SagaRig(
      async ({ call }) => {
        await call('box.ensure', 'a');
        await call('box.ensure', 'b');
      },
      { limits: { wallMs: 60_000 } },
    );
    await rig.crashAt('plan b');
    rig.clock.advance(50_000);
    rig.world.onApply = ({ step }) => {
      if (step === 2) rig.clock.advance(15_000);
    };
    expect(await rig.run()).toMatchObject({ state: 'failed', problem: { code: 'E_DEADLINE' } });
    expect(rig.world.snapshot()).toEqual({});
  });

  test('finishes the step in flight when drained, and the next runner goes on', async () => {
    const rig = new SagaRig(async ({ call }) => {
      await call('box.ensure', 'a');
      await call('box.ensure', 'b');
      return 'both';
    });
    const drained = new SagaRig(rig.script);
    drained.world.onApply = ({ step }) => {
      if (step === 1) drained.drain.abort();
    };
    expect(await drained.run()).toEqual({ state: 'released' });
    expect(drained.bodiesOf('step-result').map(({ step }) => step)).toEqual([1]);
    expect(drained.bodiesOf('step-intent').length).toBe(1);
    // The journal is what the next runner has.
    for (const event of drained.journal.events) rig.journal.events.push(event);
    rig.world.boxes.set('a', { size: 1, colour: 'plain', whole: true, lastOp: 'x' });
    expect(await rig.run()).toEqual({ state: 'committed', output: '"both"' });
    expect(rig.world.count('create a')).toBe(0);
  });

  test('commits when it is drained with nothing left to start', async () => {
    const rig = new SagaRig(async ({ call }) => await call('box.ensure', 'a'));
    rig.world.onApply = () => rig.drain.abort();
    expect((await rig.run()).state).toBe('committed');
  });

  test('leaves the rest of an undo to the next runner when drained', async () => {
    const rig = new SagaRig(async ({ call }) => {
      await call('box.ensure', 'a');
      await call('box.ensure', 'b');
      throw new Error('boom');
    });
    const drained = new SagaRig(rig.script);
    drained.world.onUndo = () => drained.drain.abort();
    expect(await drained.run()).toEqual({ state: 'released' });
    expect(drained.bodiesOf('undo-result').map(({ step }) => step)).toEqual([2]);
    expect(Object.keys(drained.world.snapshot())).toEqual(['a']);
    expect(drained.bodiesOf('finished')).toEqual([]);
  });

  test('is not given more time by a wall clock that was set back', async () => {
    const rig = new SagaRig(async ({ call }) => await call('box.ensure', 'a'), {
      limits: { wallMs: 60_000 },
    });
    await rig.crashAt('plan a');
    rig.clock.advance(-40 * 86_400_000);
    rig.world.onApply = () => rig.clock.advance(60_000);
    expect(await rig.run()).toMatchObject({ state: 'failed', problem: { code: 'E_DEADLINE' } });
  });

  test('touches nothing more once another runner owns the run', async () => {
    const rig = new SagaRig(async ({ call }) => {
      await call('box.ensure', 'a');
      await call('box.ensure', 'b');
    });
    rig.world.onApply = () => {
      rig.journal.epoch += 1;
    };
    await expect(rig.run()).rejects.toMatchObject({ code: 'E_STALE_EPOCH' });
    expect(rig.world.effects).toEqual(['create a', 'size a 1']);
    expect(rig.guests.every((guest) => guest.closed)).toBe(true);
  });

  test('halts when a call goes on after it was aborted', async () => {
    const rig = new SagaRig(async ({ call }) => await call('box.ensure', 'a'));
    rig.world.deaf = true;
    rig.world.onApply = () => {
      rig.cancel.abort();
      setImmediate(() => rig.clock.advance(30_000));
    };
    await expect(rig.run()).rejects.toMatchObject({ code: 'E_INTERNAL' });
    expect(rig.bodiesOf('undo-intent')).toEqual([]);
  });
});
