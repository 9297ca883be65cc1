import { expect, test } from 'vitest';
import { Bell } from './bell.ts';

test('a ring that nobody waits for is heard by the next who does', async () => {
  const bell = new Bell();
  const { signal } = new AbortController();
  bell.ring();
  await bell.wait(600_000, signal);
  const waiting = bell.wait(600_000, signal);
  bell.ring();
  await waiting;
});

test('waiting ends by time and by signal', async () => {
  const bell = new Bell();
  await bell.wait(1, new AbortController().signal);
  const stop = new AbortController();
  const waiting = bell.wait(600_000, stop.signal);
  stop.abort();
  await waiting;
  expect(stop.signal.aborted).toBe(true);
});
