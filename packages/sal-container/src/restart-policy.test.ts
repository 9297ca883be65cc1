import { describe, expect, test } from 'vitest';
import { CONTAINER_LIMITS } from './container-limits.ts';
import type { RunRecord } from './instance-store.ts';
import { decideRestart } from './restart-policy.ts';

const NOW = 1_800_000_000_000;
const run: RunRecord = { v: 1, startedAtMs: NOW - 1000, restarts: 0, halted: false };
const failed = { code: 1, atMs: NOW };
const ended = { code: 0, atMs: NOW };
const decide = (input: Partial<Parameters<typeof decideRestart>[0]>) =>
  decideRestart({ policy: 'always', instance: 'x', run, exit: failed, nowMs: NOW, ...input });

describe('what never ran is started', () => {
  test.each(['always', 'on-failure', 'never'] as const)('under %s', (policy) => {
    expect(decide({ policy, run: undefined })).toEqual({ action: 'start', restarts: 0 });
  });
});

test('a job that never restarts rests however it ended', () => {
  for (const exit of [failed, ended, 'pending', 'unseen'] as const) {
    expect(decide({ policy: 'never', exit })).toEqual({ action: 'rest' });
  }
  expect(decide({ policy: 'never', run: { ...run, halted: true } })).toEqual({ action: 'rest' });
});

test('on-failure rests after success only', () => {
  expect(decide({ policy: 'on-failure', exit: ended })).toEqual({ action: 'rest' });
  expect(decide({ policy: 'on-failure', exit: failed }).action).toBe('wait');
  expect(decide({ policy: 'on-failure', exit: 'unseen', nowMs: NOW + 5000 }).action).toBe('start');
});

test('what we stopped is started at once, also after a clean exit', () => {
  const halted = { ...run, halted: true, restarts: 9 };
  const start = { action: 'start', restarts: 0 };
  expect(decide({ run: halted, exit: ended })).toEqual(start);
  expect(decide({ policy: 'on-failure', run: halted, exit: ended })).toEqual(start);
});

test('waits for an exit code that is being written', () => {
  expect(decide({ exit: 'pending' })).toMatchObject({ action: 'wait', restarts: 0 });
});

test('backs off twice as long each time, within bounds, and then starts', () => {
  const delays = [0, 1, 2, 3, 20].map((restarts) => {
    const decision = decide({ run: { ...run, restarts } });
    if (decision.action !== 'wait') throw new Error(decision.action);
    expect(decide({ run: { ...run, restarts }, nowMs: decision.untilMs })).toEqual({
      action: 'start',
      restarts: restarts + 1,
    });
    return decision.untilMs - NOW;
  });
  for (const [index, delayMs] of delays.entries()) {
    const base = [500, 1000, 2000, 4000, 60_000][index] ?? 0;
    expect(delayMs).toBeGreaterThanOrEqual(base);
    expect(delayMs).toBeLessThanOrEqual(base * 1.25);
  }
});

test('forgives who ran long', () => {
  const long = { ...run, startedAtMs: NOW - CONTAINER_LIMITS.restartForgivenMs, restarts: 8 };
  expect(decide({ run: long })).toMatchObject({ restarts: 1 });
});

test('spreads containers that fail together', () => {
  const untils = ['a', 'b', 'c', 'd'].map((instance) => decide({ instance }));
  expect(new Set(untils.map((until) => JSON.stringify(until))).size).toBeGreaterThan(1);
});

test('a clock set back keeps nothing down', () => {
  const past = NOW - 10 * CONTAINER_LIMITS.restartMsMax;
  expect(decide({ nowMs: past }).action).toBe('start');
});
