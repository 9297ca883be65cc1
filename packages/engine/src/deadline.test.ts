import { HyphaError } from '@hypha/protocol';
import type { StepContext } from '@hypha/sal';
import { describe, expect, test } from 'vitest';
import { SagaRig } from './testing/saga-rig.ts';

const MINUTE_MS = 60_000;

/** Goes on until it is told to stop, as a health check does. */
async function untilAborted({ signal }: StepContext): Promise<never> {
  return await new Promise((_resolve, reject) => {
    const abort = () => reject(new Error('stopped'));
    signal.addEventListener('abort', abort, { once: true });
  });
}

describe('a step that takes too long', () => {
  test('fails with an error the script can catch, and leaves nothing behind', async () => {
    const rig = new SagaRig(async ({ call, log }) => {
      try {
        await call('box.ensure', 'a', { within: 5_000 });
      } catch (error) {
        log((error as { message: string }).message);
        return (error as { code: string }).code;
      }
    });
    rig.world.onApply = untilAborted;
    expect(await rig.run()).toEqual({ state: 'committed', output: '"E_TIMEOUT"' });
    expect(rig.bodiesOf('log')[0]?.message).toBe('box.ensure a took longer than 5000 ms');
    expect(rig.world.snapshot()).toEqual({});
  });

  test('is not tried again past its deadline', async () => {
    const rig = new SagaRig(async ({ call }) => {
      await call('box.ensure', 'a', { within: 1_000, busy: 100 });
    });
    expect(await rig.run()).toMatchObject({ state: 'failed', problem: { code: 'E_TIMEOUT' } });
    // 100, 200, 400 ms and the rest of the second.
    expect(rig.faults.length).toBeLessThan(6);
  });

  test('has ten minutes when its verb says nothing', async () => {
    const rig = new SagaRig(
      async ({ call }) => {
        await call('box.run', 'a');
      },
      { limits: { wallMs: 60 * MINUTE_MS } },
    );
    rig.world.onApply = async (context) => {
      setImmediate(() => rig.clock.advance(10 * MINUTE_MS));
      await untilAborted(context);
    };
    expect(await rig.run()).toMatchObject({
      state: 'failed',
      problem: { code: 'E_TIMEOUT', detail: 'box.run a took longer than 600000 ms' },
    });
  });

  test('does not keep another one from its outcome', async () => {
    const rig = new SagaRig(async ({ call }) => {
      const ends = [call('box.ensure', 'a', { within: 2_000 }), call('box.ensure', 'b')];
      const settled = await Promise.allSettled(ends);
      return settled.map(({ status }) => status);
    });
    rig.world.onApply = async (context) => {
      if (context.name === 'a') await untilAborted(context);
      await rig.clock.sleep(4_000, context.signal);
    };
    expect(await rig.run()).toEqual({ state: 'committed', output: '["rejected","fulfilled"]' });
    expect(Object.keys(rig.world.snapshot())).toEqual(['b']);
  });
});

describe('what a step fetches', () => {
  const LIMITS = { limits: { wallMs: MINUTE_MS } };

  test('does not count against the time of the run, and is recorded', async () => {
    const rig = new SagaRig(async ({ call }) => {
      await call('box.ensure', 'a');
      await call('box.ensure', 'b');
    }, LIMITS);
    rig.world.onPrepare = ({ name }) => {
      if (name === 'a') rig.clock.advance(20 * MINUTE_MS);
    };
    expect((await rig.run()).state).toBe('committed');
    const prepared = rig.bodiesOf('step-intent').map(({ preparedMs }) => preparedMs);
    expect(prepared).toEqual([20 * MINUTE_MS, undefined]);
  });

  test('lengthens the run once by what is fetched side by side', async () => {
    const rig = new SagaRig(async ({ call }) => {
      await Promise.all(Array.from({ length: 10 }, (_, index) => call('box.ensure', `b${index}`)));
      await call('sleep', null, { duration: 5 * MINUTE_MS });
    }, LIMITS);
    const gate = Promise.withResolvers<void>();
    let begun = 0;
    rig.world.onPrepare = async () => {
      begun += 1;
      if (begun === 10) {
        rig.clock.advance(MINUTE_MS);
        gate.resolve();
      }
      await gate.promise;
    };
    const outcome = await rig.run();
    expect(outcome).toMatchObject({ state: 'waiting' });
    const wakeAtMs = outcome.state === 'waiting' ? outcome.wakeAtMs : 0;
    expect(wakeAtMs - rig.clock.nowMs()).toBeLessThanOrEqual(MINUTE_MS);
    const recorded = rig.bodiesOf('step-intent').map(({ preparedMs }) => preparedMs ?? 0);
    expect(recorded.reduce((sum, ms) => sum + ms, 0)).toBe(MINUTE_MS);
  });

  test('lengthens the run for the next runner too, and only by that', async () => {
    const script = async ({ call }: Parameters<SagaRig['script']>[0]) => {
      await call('box.ensure', 'a');
      await call('box.ensure', 'b');
    };
    const rigAfter = async (laterMs: number) => {
      const rig = new SagaRig(script, LIMITS);
      rig.world.onPrepare = ({ name }) => {
        if (name === 'a') rig.clock.advance(20 * MINUTE_MS);
      };
      await rig.crashAt('plan b');
      rig.clock.advance(laterMs);
      return rig;
    };
    expect((await (await rigAfter(MINUTE_MS - 1_000)).run()).state).toBe('committed');
    const late = await rigAfter(MINUTE_MS + 1_000);
    expect(await late.run()).toMatchObject({ state: 'failed', problem: { code: 'E_DEADLINE' } });
  });

  test('has a deadline of its own', async () => {
    const rig = new SagaRig(async ({ call }) => await call('box.ensure', 'a'), LIMITS);
    rig.world.onPrepare = async (context) => {
      setImmediate(() => rig.clock.advance(30 * MINUTE_MS));
      await untilAborted(context);
    };
    expect(await rig.run()).toMatchObject({
      state: 'failed',
      problem: { code: 'E_TIMEOUT', detail: 'box.ensure a took longer than 1800000 ms' },
    });
    expect(rig.bodiesOf('step-intent')).toMatchObject([{ action: 'refuse' }]);
  });

  test('is tried again while its error says that it may succeed', async () => {
    const rig = new SagaRig(async ({ call }) => await call('box.ensure', 'a'));
    let tries = 0;
    rig.world.onPrepare = () => {
      tries += 1;
      if (tries < 3) throw new HyphaError('E_UNAVAILABLE', 'the registry does not answer');
    };
    expect((await rig.run()).state).toBe('committed');
    expect(rig.faults.map(({ phase, attempt }) => [phase, attempt])).toEqual([
      ['prepare', 1],
      ['prepare', 2],
    ]);
  });

  test('is there again before a step is applied after a crash', async () => {
    const rig = new SagaRig(async ({ call }) => await call('box.ensure', 'a'));
    await rig.crashAt('apply half done a');
    const phases: string[] = [];
    rig.world.onPrepare = () => void phases.push('prepare');
    rig.world.onApply = () => void phases.push('apply');
    expect((await rig.run()).state).toBe('committed');
    expect(phases).toEqual(['prepare', 'apply']);
  });

  test('is left when the run is cancelled meanwhile', async () => {
    const rig = new SagaRig(async ({ call }) => await call('box.ensure', 'a'));
    rig.world.onPrepare = async (context) => {
      setImmediate(() => rig.cancel.abort());
      await untilAborted(context);
    };
    expect(await rig.run()).toMatchObject({ state: 'cancelled' });
    expect(rig.bodiesOf('step-intent')).toEqual([]);
  });
});
