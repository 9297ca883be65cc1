import { expect, test } from 'vitest';
import { ListeningClock } from './listening-clock.ts';

test('time that was watched counts, a pause of the watcher counts as one tick', () => {
  const clock = new ListeningClock(1_000, 500);
  for (let nowMs = 1_500; nowMs <= 4_000; nowMs += 500) clock.tick(nowMs);
  expect(clock.elapsedMs).toBe(3_000);
  clock.tick(64_000);
  expect(clock.elapsedMs).toBe(3_500);
});

test('ticks that come early add what has passed', () => {
  const clock = new ListeningClock(0, 500);
  for (const nowMs of [100, 150, 600]) clock.tick(nowMs);
  expect(clock.elapsedMs).toBe(600);
});
