import { afterEach, beforeEach, expect, test } from 'vitest';
import { Bell } from './bell.ts';
import type { Clock } from './clock.ts';
import { InFlightWork } from './in-flight-work.ts';
import { RetryLoop } from './retry-loop.ts';
import { silentLog } from './testing/journal-world.ts';
import { until } from './testing/node-fixture.ts';
import { Turns } from './turns.ts';

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

test('a ring that nobody waits for is heard by the next who does', async () => {
  const bell = new Bell();
  const { signal } = new AbortController();
  bell.ring();
  await bell.wait(600_000, signal);
  const waiting = bell.wait(600_000, signal);
  bell.ring();
  await waiting;
});

test('turns of one key come one after another, others at once up to the bound', async () => {
  const turns = new Turns(2);
  const log: string[] = [];
  const gates = new Map<string, () => void>();
  const work = (name: string) => async () => {
    log.push(`${name} begins`);
    await new Promise<void>((resolve) => gates.set(name, resolve));
    log.push(`${name} ends`);
  };
  const all = [
    turns.take('a', work('a1')),
    turns.take('a', work('a2')),
    turns.take('b', work('b1')),
    turns.take('c', work('c1')),
  ];
  await until('two began', () => gates.size === 2);
  expect(log).toEqual(['a1 begins', 'b1 begins']);
  for (const name of ['a1', 'c1', 'b1', 'a2']) {
    await until(`${name} began`, () => gates.has(name));
    gates.get(name)?.();
  }
  await Promise.all(all);
  expect(log.indexOf('a2 begins')).toBeGreaterThan(log.indexOf('a1 ends'));
  expect(turns.isTaken('a')).toBe(false);
});

test('interrupted work has ended when the interrupter goes on, and other work has not', async () => {
  const work = new InFlightWork<string>();
  const { signal } = new AbortController();
  const ended: string[] = [];
  const untilAborted = (name: string) => async (stop: AbortSignal) => {
    await new Promise<void>((resolve) => stop.addEventListener('abort', () => resolve()));
    await new Promise((resolve) => setImmediate(resolve));
    ended.push(name);
  };
  const first = work.run('first', signal, untilAborted('first'));
  void work.run('second', signal, untilAborted('second'));
  await work.interrupt((name) => name === 'first', new Error('a run wants it'));
  expect(ended).toEqual(['first']);
  await first;
});
