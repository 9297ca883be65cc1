import type { JournalBody, JournalEvent } from '@hypha/protocol';
import { expect, test } from 'vitest';
import { COORDINATOR_LIMITS as LIMITS } from './limits.ts';
import { type OpenSteps, openStepsAfter, wakeTimeOf } from './open-steps.ts';

const UNTIL = 1_767_312_000_000;

function intent(step: number, verb: string, before: unknown = null): JournalBody {
  return {
    ...{ type: 'step-intent', step, verb, class: 'read', args: {}, rid: null, kind: null },
    ...{ name: null, action: 'run', before, desired: null },
  } as JournalBody;
}
const sleep = (step: number, untilMs = UNTIL) => intent(step, 'sleep', { untilMs });
const result = (step: number): JournalBody => ({
  ...{ type: 'step-result', step, result: null, durationMs: 1 },
});

function wakeTimeAfter(bodies: readonly JournalBody[], before: OpenSteps = {}) {
  const events = bodies.map((body) => ({ body, at: UNTIL - 60_000 }) as JournalEvent);
  return wakeTimeOf(openStepsAfter(before, events));
}

test('a run waits while all it has begun is to sleep, for the first to wake', () => {
  expect(wakeTimeAfter([])).toBeUndefined();
  expect(wakeTimeAfter([intent(1, 'container.exec'), sleep(2)])).toBeUndefined();
  expect(wakeTimeAfter([intent(1, 'container.exec'), result(1), sleep(2)])).toBe(UNTIL);
  expect(wakeTimeAfter([sleep(1), sleep(2, UNTIL - 1), sleep(3)])).toBe(UNTIL - 1);
  expect(wakeTimeAfter([sleep(1), result(1)])).toBeUndefined();
});

test('a run that polls does not wait', () => {
  expect(wakeTimeAfter([sleep(1, UNTIL - 59_000)])).toBeUndefined();
  expect(wakeTimeAfter([sleep(1, UNTIL - 59_000), sleep(2)])).toBeUndefined();
});

test('what was open before counts', () => {
  expect(wakeTimeAfter([sleep(2)], { 1: null })).toBeUndefined();
  expect(wakeTimeAfter([result(1)], { 1: null, 2: UNTIL })).toBe(UNTIL);
  expect(wakeTimeAfter([sleep(2)], null)).toBeUndefined();
});

test('a node that opens steps without end, or sleeps until no time, is not followed', () => {
  const many = Array.from({ length: LIMITS.openStepsMax + 1 }, (_, index) => sleep(index + 1));
  expect(wakeTimeAfter(many.slice(1))).toBe(UNTIL);
  expect(wakeTimeAfter(many)).toBeUndefined();
  for (const until of [1.5, 1e300, 'soon', null]) {
    expect(wakeTimeAfter([intent(1, 'sleep', { untilMs: until })])).toBeUndefined();
  }
});
