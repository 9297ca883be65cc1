import type { Json } from '@hypha/protocol';
import { describe, expect, test } from 'vitest';
import { SagaRig } from './testing/saga-rig.ts';
import type { Script } from './testing/scripted-guest.ts';

/** Every call takes as long as its step is given here, milliseconds. */
function takes(rig: SagaRig, ms: (step: number) => number): void {
  rig.world.onApply = async ({ step, signal }) => await rig.clock.sleep(ms(step), signal);
}

describe('calls made together', () => {
  test('run at once, and the script hears of them in the order they end', async () => {
    const rig = new SagaRig(async ({ call, log }) => {
      const names = ['slow', 'middle', 'fast'];
      await Promise.all(
        names.map(async (name) => {
          await call('box.ensure', name);
          log(name);
        }),
      );
    });
    takes(rig, (step) => 1_000 - 100 * step);
    expect((await rig.run()).state).toBe('committed');
    expect(rig.world.atOnceMax).toBe(3);
    expect(rig.bodiesOf('step-result').map(({ step }) => step)).toEqual([3, 2, 1]);
    expect(rig.bodiesOf('log').map(({ message }) => message)).toEqual(['fast', 'middle', 'slow']);
    expect(rig.world.violations).toEqual([]);
  });

  test('are sixteen at most; the others follow in the order they were made', async () => {
    const rig = new SagaRig(async ({ call }) => {
      const names = Array.from({ length: 40 }, (_, at) => `b${at}`);
      await Promise.all(names.map((name) => call('box.ensure', name)));
    });
    takes(rig, () => 100);
    expect((await rig.run()).state).toBe('committed');
    expect(rig.world.atOnceMax).toBe(16);
    const begun = rig.bodiesOf('step-intent').map(({ step }) => step);
    expect(begun).toEqual(Array.from({ length: 40 }, (_, at) => at + 1));
  });

  test('share their appends, and no effect starts before its own intent is durable', async () => {
    const rig = new SagaRig(async ({ call }) => {
      const names = Array.from({ length: 16 }, (_, at) => `b${at}`);
      await Promise.all(names.map((name) => call('box.ensure', name)));
    });
    const early: number[] = [];
    rig.world.onApply = async ({ step, signal }) => {
      if (!rig.bodiesOf('step-intent').some((intent) => intent.step === step)) early.push(step);
      await rig.clock.sleep(100, signal);
    };
    const { points } = await rig.runWithCrashes([]);
    expect(early).toEqual([]);
    const appends = points.filter((point) => point.startsWith('after append'));
    expect(rig.bodiesOf('step-intent').length).toBe(16);
    expect(appends.length).toBeLessThan(6);
  });

  test('of which the script takes the first go on to their end before the commit', async () => {
    const rig = new SagaRig(async ({ call }) => {
      const first = Promise.race(['a', 'b'].map((name) => call('box.ensure', name)));
      return ((await first) as { name: string }).name;
    });
    takes(rig, (step) => 300 - 100 * step);
    expect(await rig.run()).toEqual({ state: 'committed', output: '"b"' });
    expect(Object.keys(rig.world.snapshot())).toEqual(['a', 'b']);
    expect(rig.bodiesOf('committed')[0]?.desired.map(({ name }) => name)).toEqual(['b', 'a']);
  });

  test('fail the run when one of them fails after the script returned', async () => {
    const rig = new SagaRig(async ({ call }) => {
      void call('box.ensure', 'slow', { broken: true });
      await call('box.ensure', 'fast');
      return 'fine';
    });
    takes(rig, (step) => (step === 1 ? 500 : 10));
    expect(await rig.run()).toMatchObject({ state: 'failed', problem: { code: 'E_HEALTH' } });
    expect(rig.world.snapshot()).toEqual({});
  });

  test('in chunks of a loop leave one result for each', async () => {
    const rig = new SagaRig(async ({ call }) => {
      const found: Json[] = [];
      for (let chunk = 0; chunk < 5; chunk++) {
        const names = Array.from({ length: 8 }, (_, at) => `c${chunk}-${at}`);
        found.push(...(await Promise.all(names.map((name) => call('box.ensure', name)))));
      }
      return found.length;
    });
    takes(rig, (step) => (step * 37) % 100);
    expect(await rig.run()).toEqual({ state: 'committed', output: '40' });
    expect(rig.world.count('create c4-7')).toBe(1);
  });
});

test('of a call that cannot be repeated the script hears once its outcome is durable', async () => {
  const rig = new SagaRig(async ({ call }) => {
    const once = async () => {
      await call('box.run', 'a');
      await call('box.peek', 'c');
    };
    await Promise.all([once(), call('box.ensure', 'b')]);
  });
  takes(rig, (step) => (step === 2 ? 100 : 10));
  rig.journal.onAppend = async (bodies) => {
    const isOnce = bodies.some((body) => body.type === 'step-result' && body.step === 1);
    if (isOnce) await rig.clock.sleep(1_000, new AbortController().signal);
  };
  const begun: (readonly [string | null, boolean])[] = [];
  const onApply = rig.world.onApply;
  rig.world.onApply = async (context) => {
    const isDurable = rig.bodiesOf('step-result').some(({ step }) => step === 1);
    begun.push([context.name, isDurable]);
    await onApply?.(context);
  };
  expect((await rig.run()).state).toBe('committed');
  expect(begun).toEqual([
    ['a', false],
    ['b', false],
    ['c', true],
  ]);
});

describe('calls on one resource', () => {
  test('take effect in the order they were made, however long each takes', async () => {
    const rig = new SagaRig(async ({ call }) => {
      await call('box.ensure', 'a');
      await Promise.all([
        ...['red', 'blue', 'green'].map((colour) => call('box.paint', 'a', { colour })),
        call('box.ensure', 'b'),
      ]);
      return await call('box.peek', 'a');
    });
    takes(rig, (step) => 1_000 - 100 * step);
    expect(await rig.run()).toEqual({ state: 'committed', output: '"green"' });
    const paints = rig.world.effects.filter((effect) => effect.startsWith('paint'));
    expect(paints).toEqual(['paint a red', 'paint a blue', 'paint a green']);
    expect(rig.world.violations).toEqual([]);
    // The other box waits for none of them.
    expect(rig.bodiesOf('step-result').map(({ step }) => step)).toEqual([1, 5, 2, 3, 4, 6]);
  });

  test('that only look at it run together', async () => {
    const rig = new SagaRig(async ({ call }) => {
      await Promise.all([1, 2, 3].map(() => call('box.peek', 'a')));
    });
    takes(rig, () => 100);
    await rig.run();
    expect(rig.world.atOnceMax).toBe(3);
    expect(rig.world.violations).toEqual([]);
  });

  test('wait for one that refers to it', async () => {
    const rig = new SagaRig(async ({ call }) => {
      const a = await call('box.ensure', 'a');
      await Promise.all([
        call('box.ensure', 'b', { inside: { deep: [a] } }),
        call('box.paint', 'a', { colour: 'red' }),
      ]);
    });
    takes(rig, (step) => (step === 2 ? 500 : 10));
    await rig.run();
    expect(rig.bodiesOf('step-result').map(({ step }) => step)).toEqual([1, 2, 3]);
  });
});

describe('the signed ceiling', () => {
  const LIMITS = { limits: { resources: { storageBytes: 100 } } };

  const coping = (sizes: readonly number[]): Script => {
    return async ({ call }) => {
      const ends = sizes.map(async (size, at) => {
        try {
          await call('box.ensure', `b${at}`, { size });
          return 'ok';
        } catch (error) {
          return (error as { code: string }).code;
        }
      });
      return await Promise.all(ends);
    };
  };

  test('holds for what is declared at once together', async () => {
    const rig = new SagaRig(coping([60, 60, 40]), LIMITS);
    takes(rig, () => 100);
    expect(await rig.run()).toEqual({ state: 'committed', output: '["ok","E_RESOURCES","ok"]' });
    expect(rig.world.snapshot()).toMatchObject({ b0: { size: 60 }, b2: { size: 40 } });
  });

  test('is not filled by a declaration that came to nothing', async () => {
    const rig = new SagaRig(async ({ call }) => {
      await call('box.ensure', 'a', { size: 20 });
      try {
        await call('box.ensure', 'a', { size: 100, broken: true });
      } catch {
        await call('box.ensure', 'b', { size: 80 });
      }
    }, LIMITS);
    expect((await rig.run()).state).toBe('committed');
    expect(rig.world.snapshot()).toMatchObject({ a: { size: 20 }, b: { size: 80 } });
  });

  test('does not refuse after a crash what was under way before it', async () => {
    const script = coping([60, 60, 40]);
    const calm = new SagaRig(script, LIMITS);
    takes(calm, () => 100);
    const { outcome, points } = await calm.runWithCrashes([]);
    for (let at = 1; at <= points.length; at++) {
      const rig = new SagaRig(script, LIMITS);
      takes(rig, () => 100);
      expect((await rig.runWithCrashes([at])).outcome, points[at - 1]).toEqual(outcome);
    }
  });
});

test('what was begun before a crash is not refused for what waited for its turn then', async () => {
  const limits = { limits: { resources: { storageBytes: 100 } } };
  const script: Script = async ({ call }) => {
    const first = call('box.ensure', 'a', { size: 10 });
    const second = call('box.ensure', 'a', { size: 60 });
    const third = call('box.ensure', 'b', { size: 60 });
    const settled = await Promise.allSettled([first, second, third]);
    return settled.map(({ status }) => status);
  };
  const calm = new SagaRig(script, limits);
  takes(calm, (step) => (step === 3 ? 2_000 : 400));
  const output = '["fulfilled","rejected","fulfilled"]';
  expect(await calm.run()).toEqual({ state: 'committed', output });
  // As if only the first outcome had got to the journal.
  const { events } = calm.journal;
  const durable = events.findIndex(({ body }) => body.type === 'step-result') + 1;
  const rig = new SagaRig(script, limits);
  rig.journal.events.push(...events.slice(0, durable));
  expect(rig.bodiesOf('step-intent').map(({ step }) => step)).toEqual([1, 3]);
  rig.world.boxes.set('a', { size: 10, colour: 'plain', whole: true, lastOp: 'x/1' });
  expect(await rig.run()).toEqual({ state: 'committed', output });
  expect(rig.world.snapshot()).toMatchObject({ a: { size: 10 }, b: { size: 60 } });
});

describe('replay of calls made together', () => {
  const both: Script = async ({ call }) => {
    await Promise.all([call('box.ensure', 'a', { size: 1 }), call('box.ensure', 'b', { size: 2 })]);
  };

  test('shows both sides when one of them differs', async () => {
    const rig = new SagaRig(both);
    takes(rig, (step) => 300 - 100 * step);
    await rig.crashAt('apply done b');
    rig.script = async ({ call }) => {
      await Promise.all([
        call('box.ensure', 'a', { size: 1 }),
        call('box.ensure', 'b', { size: 9 }),
      ]);
    };
    expect(await rig.run()).toMatchObject({
      state: 'failed',
      problem: {
        code: 'E_NONDETERMINISM',
        where: { step: 2 },
        details: { recorded: { args: { size: 2 } }, made: { args: { size: 9 } } },
      },
    });
    expect(rig.world.snapshot()).toEqual({});
  });

  test('notices that one of them is made no more', async () => {
    const rig = new SagaRig(both);
    await rig.crashAt('apply done b');
    rig.script = async ({ call }) => await call('box.ensure', 'a', { size: 1 });
    expect(await rig.run()).toMatchObject({
      state: 'failed',
      problem: { code: 'E_NONDETERMINISM', where: { step: 2 }, details: { made: null } },
    });
    expect(rig.world.snapshot()).toEqual({});
  });
});

test('five thousand steps are recorded, replayed and committed', { timeout: 60_000 }, async () => {
  const rig = new SagaRig(async ({ call, log }) => {
    for (let chunk = 0; chunk < 250; chunk++) {
      const names = Array.from({ length: 20 }, (_, at) => `b${at}`);
      await Promise.all(names.map((name) => call('box.peek', name)));
      log('chunk', { chunk });
    }
    return await call('box.ensure', 'last');
  });
  await rig.run();
  expect(rig.bodiesOf('step-result').length).toBe(5_001);
  const again = new SagaRig(rig.script);
  const { events } = rig.journal;
  again.journal.events.push(...events.filter(({ body }) => body.type !== 'committed'));
  expect((await again.run()).state).toBe('committed');
  expect(again.world.effects).toEqual([]);
});
