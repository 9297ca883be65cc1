import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { Fleet } from '../../test/fixtures/fleet.ts';
import { processTree } from '../../test/fixtures/process-tree.ts';
import { type Row, round } from './measure.ts';

const WATCH_MS = 10_000;
const SETTLE_MS = 3000;
/** `_SC_CLK_TCK`: what /proc/PID/stat counts in; 100 on every Linux that Node runs on. */
const TICKS_PER_SECOND = 100;

function cpuTicks(pids: readonly number[]): number {
  return pids.reduce((total, pid) => {
    const stat = read(`/proc/${pid}/stat`);
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return total + Number(fields[11] ?? 0) + Number(fields[12] ?? 0);
  }, 0);
}

/** Proportional set size: shared pages count once over all processes. */
function pssMiB(pids: readonly number[]): number {
  return pids.reduce((total, pid) => {
    const kib = /^Pss:\s+(\d+) kB/m.exec(read(`/proc/${pid}/smaps_rollup`))?.[1];
    return total + Number(kib ?? 0) / 1024;
  }, 0);
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

/** All-in-one with one runner, doing nothing: share of one core, memory of all processes. */
export async function idle(): Promise<Row> {
  await using fleet = await Fleet.start('--sals', 'simulated');
  await delay(SETTLE_MS);
  const pids = processTree(fleet.upPid);
  const before = cpuTicks(pids);
  await delay(WATCH_MS);
  const seconds = (cpuTicks(pids) - before) / TICKS_PER_SECOND;
  return {
    name: 'idle',
    cpuPercent: round((seconds * 100_000) / WATCH_MS),
    memoryMiB: Math.round(pssMiB(pids)),
  };
}
