import { expect, test } from 'vitest';
import { IdleClock } from './idle-clock.ts';

const NEVER = new AbortController().signal;

test('time passes at once while everything waits, and sleepers wake in the order of their time', async () => {
  const clock = new IdleClock(1000);
  const woken: [string, number][] = [];
  const sleep = async (name: string, ms: number) => {
    await clock.sleep(ms, NEVER);
    woken.push([name, clock.nowMs()]);
  };
  await Promise.all([sleep('day', 86_400_000), sleep('second', 1000), sleep('minute', 60_000)]);
  expect(woken).toEqual([
    ['second', 2000],
    ['minute', 61_000],
    ['day', 86_401_000],
  ]);
});

test('a deadline does not strike what is being done', async () => {
  const clock = new IdleClock(0);
  const deadline = new AbortController();
  const struck: string[] = [];
  const waiting = clock.sleep(10, deadline.signal).then(
    () => struck.push('struck'),
    () => struck.push('in time'),
  );
  const { promise, resolve } = Promise.withResolvers<void>();
  const work = clock.during(async () => {
    await promise;
    deadline.abort();
  });
  await new Promise(setImmediate);
  expect(clock.nowMs()).toBe(0);
  resolve();
  await Promise.all([work, waiting]);
  expect(struck).toEqual(['in time']);
});
