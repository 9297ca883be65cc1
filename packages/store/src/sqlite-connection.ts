import { hash } from 'node:crypto';
import { DatabaseSync, type SQLInputValue, type StatementSync } from 'node:sqlite';
import type { Statement, StatementResult, StoreFailure, WorkerSettings } from './sqlite-message.ts';

/** Prepared statements kept; Kysely repeats few texts, so the least recently used goes first. */
const STATEMENTS_MAX = 512;

/** Primary result codes after which no further answer can be trusted: I/O error, corrupt, not a database. */
const BROKEN = new Set([10, 11, 26]);

/** A failure that ended the transaction or the database, not just one statement. */
export class SqliteFailure extends Error {
  readonly failure: StoreFailure;
  constructor(failure: StoreFailure) {
    super(failure.message);
    this.failure = failure;
  }
  get broken(): boolean {
    return BROKEN.has(this.failure.sqliteCode & 0xff);
  }
}

/**
 * The one connection. WAL with `synchronous=FULL`: a COMMIT that returned survives power loss (design §6).
 * `locking_mode=EXCLUSIVE` before the first WAL access: no other process, and no other thread of this one,
 * can open the file, and no shared-memory file is needed.
 */
export class SqliteConnection {
  readonly #db: DatabaseSync;
  readonly #prepared = new Map<string, StatementSync>();

  constructor(settings: WorkerSettings) {
    this.#db = new DatabaseSync(settings.file, { timeout: settings.lockWaitMs });
    this.#db.exec('PRAGMA locking_mode = EXCLUSIVE');
    this.#db.exec('PRAGMA journal_mode = WAL');
    this.#db.exec('PRAGMA synchronous = FULL');
    this.#db.exec('PRAGMA foreign_keys = ON');
    this.#db.exec('PRAGMA trusted_schema = OFF');
    this.#db.exec('PRAGMA temp_store = MEMORY');
    this.#db.function('sha256_concat', { deterministic: true, varargs: true }, sha256Concat);
    // Takes the lock now, so that a second opener learns it here and not at its first write.
    this.#db.exec('BEGIN IMMEDIATE; COMMIT');
  }

  get inTransaction(): boolean {
    return this.#db.isTransaction;
  }

  /** Throws `SqliteFailure`. */
  run(statement: Statement, position?: number): StatementResult {
    try {
      const prepared = this.#prepare(statement.sql);
      // Kysely types parameters as unknown; SQLite refuses what it cannot bind.
      const parameters = statement.parameters as SQLInputValue[];
      if (prepared.columns().length > 0) {
        const rows = prepared.all(...parameters);
        return { rowsAffected: rows.length, rows };
      }
      return { rowsAffected: Number(prepared.run(...parameters).changes), rows: [] };
    } catch (error) {
      throw new SqliteFailure(failureOf(error, statement.sql, position));
    }
  }

  /** SQLite empties the WAL into the database first, so that a closed store is one file. */
  close(): void {
    this.#prepared.clear();
    this.#db.close();
  }

  #prepare(sql: string): StatementSync {
    const cached = this.#prepared.get(sql);
    if (cached !== undefined) {
      this.#prepared.delete(sql);
      this.#prepared.set(sql, cached);
      return cached;
    }
    const prepared = this.#db.prepare(sql);
    this.#prepared.set(sql, prepared);
    if (this.#prepared.size > STATEMENTS_MAX) {
      const oldest = this.#prepared.keys().next();
      if (!oldest.done) this.#prepared.delete(oldest.value);
    }
    return prepared;
  }
}

/** `sha256_concat(blob, …)`: in PostgreSQL `sha256(blob || …)`. */
function sha256Concat(...parts: readonly unknown[]): Uint8Array {
  const bytes = parts.map((part) => {
    if (part instanceof Uint8Array) return part;
    throw new TypeError('sha256_concat takes blobs');
  });
  return hash('sha256', Buffer.concat(bytes), 'buffer');
}

export function failureOf(error: unknown, sql?: string, statement?: number): StoreFailure {
  const code =
    typeof error === 'object' && error !== null && 'errcode' in error ? Number(error.errcode) : 0;
  return {
    sqliteCode: code,
    message: error instanceof Error ? error.message : String(error),
    ...(sql === undefined ? {} : { sql }),
    ...(statement === undefined ? {} : { statement }),
  };
}
