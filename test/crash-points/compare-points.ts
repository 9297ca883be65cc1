import { SandboxPool } from '@hypha/sandbox';
import { expect } from 'vitest';
import { type CrashPoint, type CrashReport, type Ending, runDeployment } from './crash-run.ts';
import { STEPS } from './crash-script.ts';
import type { CrashWorld } from './crash-world.ts';

/** More events than this in one run is a loop. */
const EVENTS_MAX = 2000;

/**
 * Runs the script without a crash and then once for every point to die at, and holds each to the first. Returns how
 * many points there were. What runs at once makes no two runs alike, so points are tried until one is past the end;
 * the point after the last event is one of its own.
 */
export async function compareAllPoints(
  world: CrashWorld,
  options: { readonly atOnce: number; readonly signal: AbortSignal },
): Promise<number> {
  await using hosts = new SandboxPool();
  const deploy = async (point: CrashPoint) => {
    options.signal.throwIfAborted();
    return await runDeployment(world, { ...point, hosts });
  };
  const whole = { eventsMax: Number.POSITIVE_INFINITY, diesAtEnd: false };
  const { ending: calm, hasDied } = await deploy({ deployment: 'calm', ...whole });
  expect(hasDied).toBe(false);
  expectWhole(calm);
  const last = await deploy({ deployment: 'point-last', ...whole, diesAtEnd: true });
  expect(last.hasDied).toBe(true);
  expectSame(last, calm, 'dead after the last event');
  const deaths = [last];
  let next = 0;
  let isOver = false;
  const walk = async () => {
    try {
      while (!isOver) {
        const eventsMax = next++;
        if (eventsMax > EVENTS_MAX) throw new Error(`still not over after ${EVENTS_MAX} events`);
        const report = await deploy({ deployment: `point-${eventsMax}`, ...whole, eventsMax });
        expectSame(report, calm, `dead after event ${eventsMax}`);
        if (!report.hasDied) return;
        deaths.push(report);
      }
    } finally {
      isOver = true;
    }
  };
  const walks = await Promise.allSettled(Array.from({ length: options.atOnce }, walk));
  for (const ended of walks) if (ended.status === 'rejected') throw ended.reason;
  expect(deaths.filter(({ isUnknown }) => isUnknown).length).toBeGreaterThan(0);
  return deaths.length;
}

function expectWhole(ending: Ending): void {
  expect(ending.receipt).toMatchObject({ state: 'succeeded', steps: STEPS, undone: 0 });
  expect(ending.once).toHaveLength(2);
  expect(new Set(Object.values(ending.made))).toEqual(new Set([1]));
  expect(ending.unmade).toEqual({});
}

function expectSame({ ending, isUnknown }: CrashReport, calm: Ending, point: string): void {
  if (!isUnknown) {
    expect(ending, point).toEqual(calm);
    return;
  }
  expect(ending.receipt, point).toMatchObject({ state: 'failed', code: 'E_UNKNOWN_OUTCOME' });
  expect(ending.worlds, point).toEqual([{}]);
  expect(ending.unmade, point).toEqual(ending.made);
  expect(new Set(Object.values(ending.made)), point).toEqual(new Set([1]));
  expect(new Set(ending.once).size, point).toBe(ending.once.length);
}
