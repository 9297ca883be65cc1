import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { processTree } from '../../test/fixtures/process-tree.ts';
import { type Budget, round } from './measure.ts';
import { ownFleet } from './own-fleet.ts';
import { pssMiB } from './process-memory.ts';

/** Long enough for every periodic thing to have its share: the slowest comes every 30 s. */
const WATCH_MS = 30_000;
const SETTLE_MS = 3_000;
const CPU_SHARE_MAX = 0.01;
const MEMORY_MIB_MAX = 500;
/** `_SC_CLK_TCK`: what /proc/PID/stat counts in; 100 on every Linux that Node runs on. */
const TICKS_PER_SECOND = 100;

function cpuSeconds(pids: readonly number[]): number {
  const ticks = pids.map((pid) => {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // User and system time, counted from behind the name, which may hold anything.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return Number(fields[11]) + Number(fields[12]);
  });
  return ticks.reduce((sum, each) => sum + each, 0) / TICKS_PER_SECOND;
}

/**
 * All-in-one with one runner, doing nothing: memory of all its processes, and the share of one core that they
 * take. The bench file has no field for a share, and needs none: it is the ratio to the floor "one core".
 */
export const idle: Budget = {
  goal: '≤ 1 % of a core and ≤ 500 MiB PSS in all',
  isMet: ({ memoryMiB = Number.POSITIVE_INFINITY, ratio = Number.POSITIVE_INFINITY }) =>
    ratio <= CPU_SHARE_MAX && memoryMiB <= MEMORY_MIB_MAX,
  measure: async (own) => {
    const fleet = await ownFleet(own);
    await delay(SETTLE_MS);
    const pids = processTree(fleet.upPid);
    const [before, start] = [cpuSeconds(pids), performance.now()];
    await delay(WATCH_MS);
    const share = (cpuSeconds(pids) - before) / ((performance.now() - start) / 1000);
    return {
      name: 'idle',
      memoryMiB: Math.round(pssMiB(pids)),
      floor: { name: 'one core' },
      ratio: round(share),
    };
  },
};
