import { HyphaError } from '@hypha/protocol';
import { describe, expect, test } from 'vitest';
import { SagaRig } from './testing/saga-rig.ts';
import type { Script, ScriptApi } from './testing/scripted-guest.ts';

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

  test('writes no more intents once the journal knows of a cancel, and undoes all the same', async () => {
    const rig = new SagaRig(async ({ call, log }) => {
      await call('box.ensure', 'a');
      log('looking');
      await call('box.peek', 'a');
      await call('box.ensure', 'b');
    });
    rig.world.onPlan = () => {
      // The second plan: the reading before it still waits to be written.
      if (rig.world.boxes.size === 0) return;
      rig.journal.isCancelled = true;
      rig.cancel.abort();
    };
    expect(await rig.run()).toMatchObject({ state: 'cancelled', problem: { code: 'E_CANCELLED' } });
    expect(rig.bodiesOf('step-intent').map(({ step }) => step)).toEqual([1]);
    expect(rig.bodiesOf('undo-intent').map(({ step }) => step)).toEqual([1]);
    expect(rig.world.snapshot()).toEqual({});
  });

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

describe('stopping with several calls under way', () => {
  /** `quick` is made at once, the others work until they are told to stop. */
  function slowRig(script: Script): SagaRig {
    const rig = new SagaRig(script);
    rig.world.onApply = async ({ name, signal }) => {
      if (name !== 'quick') await rig.clock.sleep(20_000, signal);
    };
    return rig;
  }
  const together: Script = async ({ call }) => {
    const names = ['quick', 'slow', 'slower'];
    await Promise.all(names.map((name) => call('box.ensure', name)));
  };

  test('aborts all of them, then undoes: those under way first, then the newest end first', async () => {
    const rig = slowRig(async ({ call }) => {
      await call('box.ensure', 'quick', { size: 1 });
      await together({ call } as ScriptApi);
    });
    rig.world.onApply = async ({ step, signal }) => {
      if (step === 3) setImmediate(() => rig.cancel.abort());
      if (step > 2) await rig.clock.sleep(20_000, signal);
    };
    expect(await rig.run()).toMatchObject({ state: 'cancelled' });
    expect(rig.bodiesOf('undo-intent').map(({ step }) => step)).toEqual([4, 3, 1]);
    expect(rig.bodiesOf('finished')).toMatchObject([{ undone: 3, leftovers: [] }]);
    expect(rig.world.snapshot()).toEqual({});
    expect(rig.world.violations).toEqual([]);
  });

  test('undoes in reverse order of their ends, not of their numbers', async () => {
    const rig = new SagaRig(async ({ call }) => {
      const names = ['a', 'b', 'c'];
      await Promise.all(names.map((name) => call('box.ensure', name)));
      throw new Error('boom');
    });
    rig.world.onApply = async ({ step, signal }) => {
      await rig.clock.sleep([0, 200, 300, 100][step] ?? 0, signal);
    };
    expect((await rig.run()).state).toBe('failed');
    expect(rig.bodiesOf('step-result').map(({ step }) => step)).toEqual([3, 1, 2]);
    expect(rig.bodiesOf('undo-intent').map(({ step }) => step)).toEqual([2, 1, 3]);
  });

  test('keeps that order when the undo is taken over, and undoes nothing twice', async () => {
    const rigFor = () => {
      const rig = new SagaRig(async ({ call }) => {
        const names = ['a', 'b', 'c'];
        await Promise.all(names.map((name) => call('box.ensure', name)));
        throw new Error('boom');
      });
      rig.world.onApply = async ({ step, signal }) => {
        await rig.clock.sleep([0, 200, 300, 100][step] ?? 0, signal);
      };
      return rig;
    };
    const { points } = await rigFor().runWithCrashes([]);
    for (const [index, point] of points.entries()) {
      const rig = rigFor();
      const { outcome } = await rig.runWithCrashes([index + 1]);
      expect(outcome.state, point).toBe('failed');
      const ends = rig.bodiesOf('step-result').map(({ step }) => step);
      const undone = [...new Set(rig.bodiesOf('undo-intent').map(({ step }) => step))];
      expect(
        undone.filter((step) => ends.includes(step)),
        point,
      ).toEqual(ends.reverse());
      expect(rig.bodiesOf('undo-result').length, point).toBe(undone.length);
      expect(rig.world.snapshot(), point).toEqual({});
    }
  });

  test('ends the others when the script fails for one', async () => {
    const rig = slowRig(async ({ call }) => {
      await Promise.all([
        call('box.ensure', 'slow'),
        call('box.ensure', 'quick', { broken: true }),
        call('box.ensure', 'slower'),
      ]);
    });
    expect(await rig.run()).toMatchObject({
      state: 'failed',
      problem: { code: 'E_HEALTH', where: { step: 2 } },
    });
    expect(rig.world.count('create slow')).toBe(0);
    expect(rig.bodiesOf('undo-intent').map(({ step }) => step)).toEqual([3, 1, 2]);
    expect(rig.world.snapshot()).toEqual({});
  });

  test('begins none of those that wait for a place', async () => {
    const rig = slowRig(async ({ call }) => {
      const names = Array.from({ length: 40 }, (_, at) => `b${at}`);
      await Promise.all([
        ...names.map((name) => call('box.ensure', name)),
        call('box.ensure', 'quick', { broken: true }),
      ]);
    });
    const ends = rig.run();
    await expect.poll(() => rig.world.atOnceMax).toBe(16);
    rig.cancel.abort();
    expect(await ends).toMatchObject({ state: 'cancelled' });
    expect(rig.bodiesOf('step-intent').length).toBe(16);
    expect(rig.world.effects).toEqual([]);
  });

  test('waits for one that is slow to stop before anything is undone', async () => {
    const rig = new SagaRig(async ({ call }) => {
      await call('box.ensure', 'a');
      const pair = [call('box.ensure', 'b'), call('box.ensure', 'c', { broken: true })];
      await Promise.all(pair);
    });
    let isStopping = false;
    let isUndoneEarly = false;
    rig.world.onUndo = ({ step }) => {
      if (isStopping && step !== 3) isUndoneEarly = true;
    };
    rig.world.onApply = async ({ name, signal }) => {
      if (name !== 'b') return;
      isStopping = true;
      await rig.clock.sleep(20_000, signal).catch(() => undefined);
      await rig.clock.sleep(5_000, new AbortController().signal);
      isStopping = false;
    };
    expect((await rig.run()).state).toBe('failed');
    expect(isUndoneEarly).toBe(false);
    expect(rig.world.snapshot()).toEqual({});
  });

  test('halts when one of them goes on after it was aborted, and undoes nothing', async () => {
    const rig = new SagaRig(together);
    rig.world.onApply = async ({ name }) => {
      if (name === 'quick') setImmediate(() => rig.cancel.abort());
      if (name === 'slow') {
        setImmediate(() => setImmediate(() => rig.clock.advance(30_000)));
        await new Promise<never>(() => undefined);
      }
    };
    await expect(rig.run()).rejects.toMatchObject({ code: 'E_INTERNAL' });
    expect(rig.bodiesOf('undo-intent')).toEqual([]);
  });

  test('finishes them when drained, and begins no other', async () => {
    const rig = new SagaRig(async ({ call }) => {
      const names = Array.from({ length: 20 }, (_, at) => `b${at}`);
      await Promise.all(names.map((name) => call('box.ensure', name)));
      return 'all';
    });
    rig.world.onApply = async ({ step, signal }) => {
      if (step === 16) rig.drain.abort();
      await rig.clock.sleep(1_000, signal);
    };
    expect(await rig.run()).toEqual({ state: 'released' });
    expect(rig.bodiesOf('step-intent').length).toBe(16);
    expect(rig.bodiesOf('step-result').length).toBe(16);
    const next = new SagaRig(rig.script);
    next.journal.events.push(...rig.journal.events);
    for (const [name, box] of rig.world.boxes) next.world.boxes.set(name, box);
    expect(await next.run()).toEqual({ state: 'committed', output: '"all"' });
    expect(next.world.count('create b0')).toBe(0);
  });

  test('touches nothing more once another runner owns the run', async () => {
    const rig = slowRig(together);
    const before = rig.world.onApply;
    rig.world.onApply = async (context) => {
      if (context.name === 'quick') rig.journal.epoch += 1;
      await before?.(context);
    };
    await expect(rig.run()).rejects.toMatchObject({ code: 'E_STALE_EPOCH' });
    expect(rig.world.effects).toEqual(['create quick', 'size quick 1']);
  });

  test('ends them when the journal takes the run back while nothing is written', async () => {
    const rig = slowRig(together);
    const error = new HyphaError('E_KEY_REVOKED', 'key olivia was revoked');
    rig.journal.refuseNext = { type: 'step-result', error };
    expect(await rig.run()).toMatchObject({ state: 'failed', problem: { code: 'E_KEY_REVOKED' } });
    expect(rig.world.snapshot()).toEqual({});
    expect(rig.bodiesOf('undo-intent').map(({ step }) => step)).toEqual([3, 2, 1]);
  });
});
