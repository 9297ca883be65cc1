/**
 * Durable state of one process: a SQLite file, group-committed.
 *
 * ```ts
 * openStore<DB>({ file, migrations, lockWaitMs?, onBroken? }): Promise<Store<DB>>
 * interface Store<DB> extends AsyncDisposable {
 *   readonly db: Kysely<DB>;                    // build queries; run those that read (`select`)
 *   write(writes: readonly Write[]): Promise<readonly WriteResult[]>;
 *   counts(): { commits, pending };
 *   close(): Promise<void>;
 * }
 * type Write = { query: Compilable; expectRows?: number };
 * type WriteResult = { rowsAffected: number; rows: readonly unknown[] };
 * class PreparedQuery<P>                       // built once; `with(values)` is a query
 * rowOf(value, columns)                        // a row of named values
 * type Migration = { name: string; up: readonly string[] | ((db: Kysely<unknown>) => Promise<void>) };
 * class StoreConflict extends HyphaError      // E_CONFLICT; reason 'rows' | 'constraint'; position
 * isStoreConflict(error): error is StoreConflict
 * ```
 * In SQL beyond SQLite's own: `sha256_concat(blob, …)`, the digest of the blobs one behind the other.
 */
export type { Migration } from './migration.ts';
export { PreparedQuery, rowOf } from './prepared-query.ts';
export {
  openStore,
  type Store,
  type StoreCounts,
  type StoreOptions,
  type Write,
  type WriteResult,
} from './store.ts';
export { isStoreConflict, StoreConflict } from './store-conflict.ts';
