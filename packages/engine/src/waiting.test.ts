import { describe, expect, test } from 'vitest';
import { SagaRig } from './testing/saga-rig.ts';

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
const LONG = { limits: { wallMs: 7 * DAY_MS } };

/** Runs epochs until the run no longer waits, each at the time it asked for. */
async function runToEnd(rig: SagaRig) {
  for (let epochs = 1; ; epochs++) {
    const outcome = await rig.run();
    if (outcome.state !== 'waiting') return { outcome, epochs };
    rig.clock.advance(outcome.wakeAtMs - rig.clock.nowMs());
  }
}

describe('a sleep', () => {
  test('lets the run go when it is long, and the next runner goes on when it is over', async () => {
    const rig = new SagaRig(async ({ call, now }) => {
      await call('box.ensure', 'a');
      const before = now();
      await call('sleep', null, { duration: '3d' });
      await call('box.ensure', 'b');
      return now() - before >= 3 * 86_400_000;
    }, LONG);
    const startedAt = rig.clock.nowMs();
    expect(await rig.run()).toEqual({ state: 'waiting', wakeAtMs: startedAt + 3 * DAY_MS });
    expect(rig.guests.every((guest) => guest.closed)).toBe(true);
    // Durable, or the next runner would not know until when.
    expect(rig.bodiesOf('step-intent').map(({ verb }) => verb)).toEqual(['box.ensure', 'sleep']);
    rig.clock.advance(3 * DAY_MS);
    expect(await rig.run()).toEqual({ state: 'committed', output: 'true' });
    expect(rig.world.effects).toEqual(['create a', 'size a 1', 'create b', 'size b 1']);
  });

  test('goes on waiting when the run is taken up too early', async () => {
    const rig = new SagaRig(
      async ({ call }) => await call('sleep', null, { duration: '1h' }),
      LONG,
    );
    const wakeAtMs = rig.clock.nowMs() + HOUR_MS;
    expect(await rig.run()).toEqual({ state: 'waiting', wakeAtMs });
    rig.clock.advance(HOUR_MS / 2);
    expect(await rig.run()).toEqual({ state: 'waiting', wakeAtMs });
    rig.clock.advance(HOUR_MS / 2);
    expect((await rig.run()).state).toBe('committed');
    expect(rig.faults).toEqual([]);
  });

  test('is waited out in the process when it is short', async () => {
    const rig = new SagaRig(async ({ call, now }) => {
      const before = now();
      await call('sleep', null, { duration: 1_500 });
      return now() - before;
    });
    expect(await rig.run()).toEqual({ state: 'committed', output: '1500' });
  });

  test('is no longer for a crash, wherever that was', async () => {
    const calm = new SagaRig(async ({ call, now }) => {
      await call('box.ensure', 'a');
      await call('sleep', null, { duration: '1s' });
      await call('box.ensure', 'b');
      return now();
    });
    const { points } = await calm.runWithCrashes([]);
    for (let at = 1; at <= points.length; at++) {
      const rig = new SagaRig(calm.script);
      const begunMs = rig.clock.nowMs();
      const { outcome } = await rig.runWithCrashes([at]);
      expect(outcome.state).toBe('committed');
      expect(rig.clock.nowMs() - begunMs, points[at - 1]).toBeLessThan(2_000);
    }
  });

  test('counts from when the script made it, also where that was not recorded', async () => {
    const rig = new SagaRig(async ({ call }) => await call('sleep', null, { duration: '1s' }));
    const begunMs = rig.clock.nowMs();
    await rig.crashAt('before append step-intent');
    expect(rig.bodiesOf('step-intent')).toEqual([]);
    rig.clock.advance(60_000);
    const resumedMs = rig.clock.nowMs();
    expect((await rig.run()).state).toBe('committed');
    expect(rig.clock.nowMs()).toBe(resumedMs);
    expect(rig.bodiesOf('step-intent')).toMatchObject([{ before: { untilMs: begunMs + 1_000 } }]);
  });

  test('does not let a run go that also works', async () => {
    const rig = new SagaRig(async ({ call }) => {
      const sleep = call('sleep', null, { duration: '1h' });
      await call('box.ensure', 'a');
      await sleep;
    }, LONG);
    rig.world.onApply = async ({ signal }) => {
      await rig.clock.sleep(5_000, signal);
    };
    const wakeAtMs = rig.clock.nowMs() + HOUR_MS;
    expect(await rig.run()).toEqual({ state: 'waiting', wakeAtMs });
    expect(rig.bodiesOf('step-result').map(({ step }) => step)).toEqual([2]);
  });

  test('takes no place among the calls that work, and the earliest decides', async () => {
    const rig = new SagaRig(async ({ call }) => {
      const sleeps = Array.from({ length: 40 }, (_, at) =>
        call('sleep', null, { duration: `${40 - at}m` }),
      );
      await call('box.ensure', 'a');
      await Promise.race(sleeps);
      return 'first';
    }, LONG);
    const begunMs = rig.clock.nowMs();
    expect(await rig.run()).toEqual({ state: 'waiting', wakeAtMs: begunMs + 60_000 });
    expect(rig.bodiesOf('step-result').map(({ step }) => step)).toEqual([41]);
  });

  test('that nobody waits for is still waited for, epoch after epoch', async () => {
    const rig = new SagaRig(async ({ call }) => {
      for (const minutes of [1, 2, 3]) void call('sleep', null, { duration: `${minutes}m` });
      return 'early';
    }, LONG);
    const { outcome, epochs } = await runToEnd(rig);
    expect(outcome).toEqual({ state: 'committed', output: '"early"' });
    expect(epochs).toBe(4);
  });

  test('ends with the run at its deadline, for which the run is woken', async () => {
    const rig = new SagaRig(
      async ({ call }) => {
        await call('box.ensure', 'a');
        await call('sleep', null, { duration: '2h' });
      },
      { limits: { wallMs: HOUR_MS } },
    );
    const begunMs = rig.clock.nowMs();
    expect(await rig.run()).toEqual({ state: 'waiting', wakeAtMs: begunMs + HOUR_MS });
    rig.clock.advance(HOUR_MS);
    expect(await rig.run()).toMatchObject({ state: 'failed', problem: { code: 'E_DEADLINE' } });
    expect(rig.world.snapshot()).toEqual({});
  });

  test('ends when the run is cancelled, and what was made before it is undone', async () => {
    const rig = new SagaRig(async ({ call }) => {
      await call('box.ensure', 'a');
      await call('sleep', null, { duration: '2h' });
    }, LONG);
    expect((await rig.run()).state).toBe('waiting');
    rig.cancel.abort();
    expect(await rig.run()).toMatchObject({ state: 'cancelled' });
    expect(rig.world.snapshot()).toEqual({});
  });

  test('in the process is left to the next runner when drained', async () => {
    const rig = new SagaRig(async ({ call }) => {
      await call('sleep', null, { duration: '1s' });
      return 'slept';
    });
    const drained = new SagaRig(rig.script);
    drained.journal.onAppend = async (bodies) => {
      if (bodies.some(({ type }) => type === 'step-intent')) drained.drain.abort();
    };
    expect(await drained.run()).toEqual({ state: 'released' });
    expect(drained.bodiesOf('step-intent').map(({ verb }) => verb)).toEqual(['sleep']);
    expect(drained.bodiesOf('step-result')).toEqual([]);
  });

  test.each([
    ['a word', 'soon'],
    ['a negative time', '-1s'],
    ['more than a year', '367d'],
    ['no time at all', undefined],
  ])('of %s is refused', async (_what, duration) => {
    const rig = new SagaRig(async ({ call }) => {
      await call('sleep', null, duration === undefined ? {} : { duration });
    });
    expect(await rig.run()).toMatchObject({ state: 'failed', problem: { code: 'E_ARGUMENT' } });
  });
});

describe('a wait for something', () => {
  test('is told how often to look and when to give up, by the clock of the script', async () => {
    const rig = new SagaRig(async ({ call, now }) => {
      await call('box.ensure', 'a');
      const args = { label: 'green', every: '10s', timeout: '1m' };
      const { everyMs, untilMs } = (await call('waitFor', null, args)) as Record<string, number>;
      return { everyMs, leftMs: Number(untilMs) - now() };
    });
    expect(await rig.run()).toEqual({
      state: 'committed',
      output: '{"everyMs":10000,"leftMs":60000}',
    });
  });

  test('has a pace and an end of its own when it is given none', async () => {
    const rig = new SagaRig(async ({ call }) => await call('waitFor', null, { label: 'green' }));
    const untilMs = rig.clock.nowMs() + 600_000;
    const output = JSON.stringify({ everyMs: 5_000, untilMs });
    expect(await rig.run()).toEqual({ state: 'committed', output });
  });

  test('lets the run go between two looks', async () => {
    const rig = new SagaRig(async ({ call, now }) => {
      let looks = 0;
      for (let seen = null; seen !== 'red'; looks++) {
        seen = (await call('box.peek', 'a')) as null;
        const untilMs = now() + 30_000;
        if (seen !== 'red') await call('sleep', null, { untilMs, of: 'red' });
      }
      return looks;
    }, LONG);
    rig.world.boxes.set('a', { size: 1, colour: 'grey', whole: true, lastOp: 'x' });
    for (let epoch = 0; epoch < 3; epoch++) {
      const outcome = await rig.run();
      if (outcome.state !== 'waiting') throw new Error(outcome.state);
      rig.clock.advance(outcome.wakeAtMs - rig.clock.nowMs());
    }
    rig.world.boxes.set('a', { size: 1, colour: 'red', whole: true, lastOp: 'x' });
    expect(await rig.run()).toEqual({ state: 'committed', output: '4' });
  });
});

describe('what time it is', () => {
  test('is recorded with every outcome, and never goes back', async () => {
    const rig = new SagaRig(async ({ call, now }) => {
      const times = [now()];
      for (const name of ['a', 'b', 'c']) {
        await call('box.ensure', name);
        times.push(now());
      }
      return times.map((time) => time - Number(times[0]));
    });
    rig.world.onApply = ({ step }) => rig.clock.advance([0, 1_000, -5_000, 7_000][step] ?? 0);
    expect(await rig.run()).toEqual({ state: 'committed', output: '[0,1000,1000,3000]' });
    const recorded = rig.bodiesOf('step-result').map(({ nowMs }) => Number(nowMs));
    const begunMs = Number(rig.bodiesOf('started')[0]?.nowMs);
    expect(recorded.map((time) => time - begunMs)).toEqual([1_000, 1_000, 3_000]);
    const again = new SagaRig(rig.script);
    again.clock.advance(300_000);
    const { events } = rig.journal;
    again.journal.events.push(...events.filter(({ body }) => body.type !== 'committed'));
    expect(await again.run()).toEqual({ state: 'committed', output: '[0,1000,1000,3000]' });
  });

  test('stands still in a journal of the engine before', async () => {
    const rig = new SagaRig(async ({ call, now }) => {
      const begunMs = now();
      await call('box.ensure', 'a');
      const then = now() - begunMs;
      await call('box.ensure', 'b');
      return { then, later: now() - begunMs };
    });
    await rig.crashAt('apply begins b');
    rig.clock.advance(60_000);
    // As that engine wrote it.
    for (const { body } of rig.journal.events) {
      if (body.type === 'started') body.abi = '1';
      if (body.type === 'step-result') delete body.nowMs;
    }
    expect(await rig.run()).toEqual({ state: 'committed', output: '{"then":0,"later":60000}' });
    expect(rig.world.effects).toEqual(['create a', 'size a 1', 'create b', 'size b 1']);
  });
});
