import { expect, test } from 'vitest';
import { COORDINATOR_LIMITS as LIMITS } from './limits.ts';
import { expiresAt, nextSendAt } from './resend-schedule.ts';

test('the delay doubles with every attempt and stops at the ceiling', () => {
  const delays = [1, 2, 3, 4, 5, 6, 50].map((attempts) => nextSendAt(0, attempts, 0.999_999));
  expect(delays).toEqual([2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
});

test('jitter takes away at most half of the delay', () => {
  expect(nextSendAt(1000, 1, 0)).toBe(1000 + LIMITS.resendDelayMsMin / 2);
  expect(nextSendAt(1000, 1, 0.5)).toBe(1000 + LIMITS.resendDelayMsMin * 0.75);
});

test('a message is given up one grace after exp, in milliseconds', () => {
  expect(expiresAt(100, 7)).toBe(100_007);
});
