import { afterEach, beforeEach, expect, test } from 'vitest';
import type { Clock } from './clock.ts';
import { RetryLoop } from './retry-loop.ts';
import { silentLog } from './testing/journal-world.ts';
import { until } from './testing/node-fixture.ts';

const clock: Clock = {
  nowMs: () => 0,
  monotonicMs: () => 0,
  jitter: () => 1,
  sleep: async (ms, signal) => {
    slept.push(ms);
    if (!signal.aborted) await new Promise((resolve) => setImmediate(resolve));
  },
};
let slept: number[];
let calls: number;
let outcome: () => boolean;
let loop: RetryLoop;
beforeEach(() => {
  slept = [];
  calls = 0;
  outcome = () => false;
  loop = new RetryLoop({
    clock,
    log: silentLog,
    name: 'test',
    work: async () => {
      calls++;
      return outcome();
    },
  });
});
afterEach(() => loop.stop());

test('work is done at the start, again while more is left, and when asked', async () => {
  let left = 2;
  outcome = () => left-- > 0;
  loop.start();
  await until('nothing is left', () => calls === 3);
  loop.kick();
  await until('it was asked', () => calls === 4);
});

test('failures are tried again with growing pauses, which asking does not shorten', async () => {
  outcome = () => {
    if (calls < 5) throw new Error('away');
    return false;
  };
  loop.start();
  loop.kick();
  await until('it worked', () => calls >= 5);
  expect(slept.filter((ms) => ms >= 200).slice(0, 4)).toEqual([200, 400, 800, 1600]);
});
