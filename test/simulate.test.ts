import { describe, expect, test } from 'vitest';
import { simulate } from './simulation/simulate.ts';

const SEEDS = 2000;
/** Of one test: so that a failure says where, and no test takes minutes. */
const SEEDS_EACH = 250;

/** Another part of the seeds in each run of the suite; a failure names its seed, which reproduces it. */
const first = Math.floor(performance.timeOrigin) % 1_000_000_000;

describe(`engine, journal and queue in a storm of faults, seeds ${first} to ${first + SEEDS - 1}`, () => {
  const starts = Array.from(
    { length: SEEDS / SEEDS_EACH },
    (_, index) => first + index * SEEDS_EACH,
  );
  test.for(starts)('keep every promise from seed %i on', { timeout: 300_000 }, async (start) => {
    for (let seed = start; seed < start + SEEDS_EACH; seed++) {
      const { violations } = await simulate(seed);
      expect(violations, `scripts/simulate --seed ${seed}`).toEqual([]);
    }
  });
});

test('a seed reproduces all that happened', async () => {
  for (const seed of [7, 53, 118]) {
    const once = await simulate(seed);
    expect(await simulate(seed)).toEqual(once);
    expect(once.runs).toBeGreaterThan(0);
    expect(once.faults).toBeGreaterThan(0);
  }
  expect((await simulate(7)).trace).not.toEqual((await simulate(8)).trace);
});
