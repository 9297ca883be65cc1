import { expect, test } from 'vitest';
import { TokenBuckets } from './token-buckets.ts';

test('a burst is let through, then what the rate gives', () => {
  const buckets = new TokenBuckets({ perSecond: 10, burst: 3 });
  expect([0, 0, 0, 0].map(() => buckets.take('a', 0))).toEqual([0, 0, 0, 100]);
  expect(buckets.take('a', 50)).toBe(50);
  expect(buckets.take('a', 100)).toBe(0);
  expect(buckets.take('a', 100)).toBe(100);
});

test('a pause fills a bucket up to its burst and no further', () => {
  const buckets = new TokenBuckets({ perSecond: 10, burst: 2 });
  expect([0, 0, 3_600_000, 3_600_000, 3_600_000].map((at) => buckets.take('a', at))).toEqual([
    0, 0, 0, 0, 100,
  ]);
});

test('one key takes nothing from another', () => {
  const buckets = new TokenBuckets({ perSecond: 1, burst: 1 });
  expect(buckets.take('a', 0)).toBe(0);
  expect(buckets.take('a', 0)).toBe(1000);
  expect(buckets.take('b', 0)).toBe(0);
});

test('of too many keys the one that asked longest ago is forgotten', () => {
  const buckets = new TokenBuckets({ perSecond: 1, burst: 1, max: 2 });
  expect(['a', 'b', 'a', 'c'].map((key) => buckets.take(key, 0))).toEqual([0, 0, 1000, 0]);
  expect(buckets.take('a', 0)).toBe(1000);
  expect(buckets.take('b', 0)).toBe(0);
});
