import { mkdir, open } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { HyphaError } from '@hypha/protocol';
import { type Compilable, Kysely } from 'kysely';
import { applyMigrations, type Migration } from './migration.ts';
import type { Statement, StatementResult } from './sqlite-message.ts';
import { createWorkerDialect } from './worker-dialect.ts';
import { type RequestBody, WorkerLink } from './worker-link.ts';

export interface Write {
  readonly query: Compilable;
  /** Rows the query has to change (or return); otherwise the whole list is undone: `StoreConflict`. */
  readonly expectRows?: number;
}

export interface WriteResult {
  readonly rowsAffected: number;
  /** What `returning` returned. */
  readonly rows: readonly unknown[];
}

export interface StoreCounts {
  /** Transactions with an fsync since the store was opened. */
  readonly commits: number;
  /** Requests that wait for their answer. */
  readonly pending: number;
}

/** One SQLite file, owned by this process. */
export interface Store<DB> extends AsyncDisposable {
  /**
   * Builds queries, and runs those that only read. A read sees every `write()` called before it, resolved
   * or not, and is answered once those are durable.
   */
  readonly db: Kysely<DB>;
  /**
   * All or none, durable (fsynced) when it resolves. Lists that are written at the same time share one
   * fsync, each in its own savepoint: one that fails leaves the others alone.
   *
   * Throws `StoreConflict` (`E_CONFLICT`) when a row count or a constraint did not hold; `E_STORAGE` when
   * the disk is full (the store stays usable); `E_UNAVAILABLE` when closed or overloaded. A crash before it
   * resolves leaves the list either whole or absent.
   */
  write(writes: readonly Write[]): Promise<readonly WriteResult[]>;
  counts(): StoreCounts;
  /** Lets what was asked finish, then closes the file. Idempotent. */
  close(): Promise<void>;
}

export interface StoreOptions {
  /** Made, with its folder, when absent (0600 in 0700). */
  readonly file: string;
  readonly migrations: readonly Migration[];
  /** How long to wait for a previous owner of the file to go, milliseconds. */
  readonly lockWaitMs?: number;
  /**
   * The database can no longer keep a promise (I/O error, corruption, its thread died). Every pending call
   * has failed. By default the error is thrown where nothing catches it, so that the process ends loudly.
   */
  readonly onBroken?: (error: HyphaError) => void;
}

const LOCK_WAIT_MS = 3_000;

/**
 * Opens or makes the file and brings its schema up to date. WAL, `synchronous=FULL`, foreign keys on, in a
 * worker thread (design §6). Throws `E_UNAVAILABLE` when another process owns the file.
 */
export async function openStore<DB>(options: StoreOptions): Promise<Store<DB>> {
  await ensurePrivateFile(options.file);
  const link = await WorkerLink.open(
    { file: options.file, lockWaitMs: options.lockWaitMs ?? LOCK_WAIT_MS },
    options.onBroken ?? throwUncaught,
  );
  return await openStoreOn<DB>(link, options);
}

/** Where the database is: its thread, or in tests this one. */
export interface StoreLink {
  readonly commits: number;
  readonly pending: number;
  request(body: RequestBody): Promise<readonly StatementResult[]>;
  close(): Promise<void>;
}

/** Brings the schema behind `link` up to date. Closes it when that fails. */
export async function openStoreOn<DB>(
  link: StoreLink,
  options: Pick<StoreOptions, 'file' | 'migrations'>,
): Promise<Store<DB>> {
  try {
    const run = async (statement: Statement) =>
      single(await link.request({ kind: 'raw', statement }));
    await applyMigrations(run, options.migrations, options.file);
  } catch (error) {
    await link.close();
    throw error;
  }
  const read = async (statement: Statement) =>
    single(await link.request({ kind: 'read', statement }));
  return {
    db: new Kysely<DB>({ dialect: createWorkerDialect(read, 'read-only') }),
    write: async (writes) => {
      const statements = writes.map(({ query, expectRows }) => {
        const { sql, parameters } = query.compile();
        return { sql, parameters, ...(expectRows === undefined ? {} : { expectRows }) };
      });
      return await link.request({ kind: 'write', statements });
    },
    counts: () => ({ commits: link.commits, pending: link.pending }),
    close: () => link.close(),
    [Symbol.asyncDispose]: () => link.close(),
  };
}

async function ensurePrivateFile(file: string): Promise<void> {
  await mkdir(dirname(file), { recursive: true, mode: 0o700 });
  await (await open(file, 'a', 0o600)).close();
}

function single(results: readonly StatementResult[]): StatementResult {
  const [result] = results;
  if (result === undefined) throw new Error('the store answered a statement with nothing');
  return result;
}

function throwUncaught(error: HyphaError): void {
  setImmediate(() => {
    throw error;
  });
}
