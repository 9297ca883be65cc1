import { readFileSync } from 'node:fs';

/** Proportional set size: what processes share counts once over all of them. */
export function pssMiB(pids: readonly number[]): number {
  const kib = pids.map((pid) => {
    const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8');
    return Number(/^Pss:\s+(\d+) kB/m.exec(rollup)?.[1]);
  });
  return kib.reduce((sum, each) => sum + each, 0) / 1024;
}
