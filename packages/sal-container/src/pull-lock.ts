/**
 * A lock between the processes of one node that the kernel releases when its holder dies: an exclusive
 * SQLite transaction on an empty database. Node has no other lock of that kind.
 */
import { mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { setTimeout as sleep } from 'node:timers/promises';
import { HyphaError } from '@hypha/protocol';
import { orStorageError } from './storage-effects.ts';

const POLL_MS = 50;
const SQLITE_BUSY = 5;
const SQLITE_FULL = 13;

export interface PullLock {
  release(): void;
}

/** Undefined when another holds it. */
export function tryLock(path: string): Promise<PullLock | undefined> {
  return orStorageError(() => tryOpen(path), `lock ${path}`);
}

/** The empty database needs a page while it is locked. */
async function tryOpen(path: string): Promise<PullLock | undefined> {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  const database = new DatabaseSync(path, { timeout: 0 });
  try {
    database.exec('BEGIN EXCLUSIVE');
    return { release: () => database.close() };
  } catch (cause) {
    database.close();
    const errcode = cause instanceof Error && 'errcode' in cause ? cause.errcode : undefined;
    if (errcode === SQLITE_BUSY) return undefined;
    const code = errcode === SQLITE_FULL ? 'E_STORAGE' : 'E_SAL';
    throw new HyphaError(code, `cannot lock ${path}`, { cause });
  }
}

/** Waits until the lock is free, or throws the signal's reason. */
export async function waitForLock(path: string, signal: AbortSignal): Promise<PullLock> {
  for (;;) {
    signal.throwIfAborted();
    const lock = await tryLock(path);
    if (lock !== undefined) return lock;
    await sleep(POLL_MS, undefined, { signal }).catch(() => signal.throwIfAborted());
  }
}
