/**
 * Who runs on a state folder: one `hypha up` at a time, and the pids it started, so that a successor can
 * end a Redis that outlived it. A pid counts only with its start time: numbers are used again.
 */
import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { HyphaError } from '@hypha/protocol';
import { z } from 'zod';
import type { RunningProcess } from './process-manager.ts';

const Entry = z.object({ name: z.string(), pid: z.int(), startTime: z.string() });
const Record = z.object({ up: Entry, processes: z.array(Entry) });
export type PidRecord = z.infer<typeof Record>;

/** Field 22 of /proc/PID/stat; null when the process is gone or the system has no /proc. */
export function startTimeOf(pid: number): string | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The second field may hold spaces and brackets; what follows the last bracket does not.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return fields[0] === 'Z' ? null : (fields[19] ?? null);
  } catch {
    return null;
  }
}

function isAlive(entry: { pid: number; startTime: string }): boolean {
  return startTimeOf(entry.pid) === entry.startTime;
}

function entryOf(process: RunningProcess): z.infer<typeof Entry> {
  return { ...process, startTime: startTimeOf(process.pid) ?? '' };
}

export function readPidRecord(file: string): PidRecord | undefined {
  try {
    return Record.parse(JSON.parse(readFileSync(file, 'utf8')));
  } catch {
    return undefined;
  }
}

export function writePidRecord(file: string, processes: readonly RunningProcess[]): void {
  const record: PidRecord = {
    up: entryOf({ name: 'up', pid: process.pid }),
    processes: processes.map(entryOf),
  };
  writeFileSync(`${file}.tmp`, JSON.stringify(record), { mode: 0o600 });
  renameSync(`${file}.tmp`, file);
}

export function removePidRecord(file: string): void {
  rmSync(file, { force: true });
}

/**
 * Refuses when another `up` holds the state; ends what a killed one left running.
 * Throws `E_CONFLICT` with the pid.
 */
export async function takeOver(file: string): Promise<void> {
  const record = readPidRecord(file);
  if (record === undefined) return;
  if (isAlive(record.up)) {
    throw new HyphaError(
      'E_CONFLICT',
      `hypha up already runs on this state, pid ${record.up.pid}`,
      {
        hint: `stop it with: kill ${record.up.pid}`,
      },
    );
  }
  const deadline = performance.now() + 40_000;
  for (const stray of record.processes.filter(isAlive)) process.kill(stray.pid, 'SIGTERM');
  while (record.processes.some(isAlive)) {
    if (performance.now() > deadline) {
      for (const stray of record.processes.filter(isAlive)) process.kill(stray.pid, 'SIGKILL');
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
