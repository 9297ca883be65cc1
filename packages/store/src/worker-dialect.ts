import {
  type CompiledQuery,
  type DatabaseConnection,
  type Dialect,
  type Driver,
  type Kysely,
  type QueryResult,
  SelectQueryNode,
  SqliteAdapter,
  SqliteIntrospector,
  SqliteQueryCompiler,
} from 'kysely';
import type { Statement, StatementResult } from './sqlite-message.ts';

type RunStatement = (statement: Statement) => Promise<StatementResult>;

/**
 * Kysely over the store's thread. `read-only` refuses everything that is not a query: a write through it
 * would be outside the group commit, and its failure nobody's list.
 */
export function createWorkerDialect(run: RunStatement, access: 'read-only' | 'migration'): Dialect {
  return {
    createAdapter: () => new ConcurrentAdapter(),
    createDriver: () => new WorkerDriver(run, access),
    createIntrospector: (db: Kysely<never>) => new SqliteIntrospector(db),
    createQueryCompiler: () => new SqliteQueryCompiler(),
  };
}

/** Statements are told apart by their id and never share a transaction: none has to wait for another's answer. */
class ConcurrentAdapter extends SqliteAdapter {
  override get supportsMultipleConnections(): boolean {
    return true;
  }
}

class WorkerDriver implements Driver {
  readonly #connection: DatabaseConnection;

  constructor(run: RunStatement, access: 'read-only' | 'migration') {
    this.#connection = {
      executeQuery: async <R>(query: CompiledQuery): Promise<QueryResult<R>> => {
        if (access === 'read-only' && !isQuery(query)) {
          throw new Error('store.db only reads; writes go through store.write()');
        }
        const { rows, rowsAffected } = await run({
          sql: query.sql,
          parameters: query.parameters,
        });
        // The row type is the one Kysely derived from the query.
        return { rows: rows as R[], numAffectedRows: BigInt(rowsAffected) };
      },
      streamQuery: () => {
        throw new Error('the store does not stream; page with limit');
      },
    };
  }

  async init(): Promise<void> {}
  async acquireConnection(): Promise<DatabaseConnection> {
    return this.#connection;
  }
  async beginTransaction(): Promise<void> {
    throw new Error('the store has no interactive transactions; store.write() takes a list');
  }
  async commitTransaction(): Promise<void> {}
  async rollbackTransaction(): Promise<void> {}
  async releaseConnection(): Promise<void> {}
  async destroy(): Promise<void> {}
}

function isQuery(query: CompiledQuery): boolean {
  if (SelectQueryNode.is(query.query)) return true;
  return query.query.kind === 'RawNode' && /^\s*select\b/i.test(query.sql);
}
