import { HyphaError } from '@hypha/protocol';
import type { StoreFailure } from './sqlite-message.ts';
import { StoreConflict } from './store-conflict.ts';

/** SQLite primary result codes. */
const SQLITE = { busy: 5, locked: 6, full: 13, constraint: 19 } as const;

/** What SQLite said, with the statement it said it to. */
export function causeOf(failure: StoreFailure): Error {
  const of = failure.sql === undefined ? '' : ` in: ${failure.sql}`;
  return new Error(`SQLite ${failure.sqliteCode}: ${failure.message}${of}`);
}

/** Why the file could not be opened: `E_UNAVAILABLE` when another process owns it, else `E_INTERNAL`. */
export function openError(failure: StoreFailure, file: string): HyphaError {
  const cause = causeOf(failure);
  const primary = failure.sqliteCode & 0xff;
  if (primary === SQLITE.busy || primary === SQLITE.locked) {
    return new HyphaError('E_UNAVAILABLE', `store ${file} is owned by another process`, {
      hint: 'stop the other process, or give this one a state folder of its own',
      retryable: false,
      cause,
    });
  }
  return new HyphaError('E_INTERNAL', `cannot open store ${file}`, { cause });
}

/** Why a request failed: `StoreConflict`, `E_STORAGE` or `E_INTERNAL`. */
export function requestError(failure: StoreFailure, file: string): HyphaError {
  const cause = causeOf(failure);
  const position = failure.statement ?? 0;
  if (failure.rows !== undefined) {
    const { expected, actual } = failure.rows;
    const message = `write ${position} touched ${actual} rows where ${expected} were expected`;
    return new StoreConflict(position, 'rows', message, cause);
  }
  const primary = failure.sqliteCode & 0xff;
  if (primary === SQLITE.constraint) {
    return new StoreConflict(position, 'constraint', `write ${position} met a constraint`, cause);
  }
  if (primary === SQLITE.full) {
    return new HyphaError('E_STORAGE', `cannot write to store ${file}`, { cause });
  }
  return new HyphaError('E_INTERNAL', `cannot run a statement on store ${file}`, { cause });
}
