import { type SqliteConnection, SqliteFailure } from './sqlite-connection.ts';
import type { Statement, StatementResult, StoreAnswer, StoreRequest } from './sqlite-message.ts';

type GroupRequest = Extract<StoreRequest, { kind: 'read' | 'write' }>;

const BEGIN: Statement = { sql: 'BEGIN IMMEDIATE', parameters: [] };
const COMMIT: Statement = { sql: 'COMMIT', parameters: [] };
const ROLLBACK: Statement = { sql: 'ROLLBACK', parameters: [] };
const SAVEPOINT: Statement = { sql: 'SAVEPOINT list', parameters: [] };
const ROLLBACK_LIST: Statement = { sql: 'ROLLBACK TO list', parameters: [] };
const RELEASE: Statement = { sql: 'RELEASE list', parameters: [] };

/**
 * Runs a group of requests in the order they came and commits their writes with one fsync. Each write list
 * is all-or-none in its own savepoint. A read sees every write before it; its answer, like theirs, is
 * returned only after the commit, so nothing is shown before it is durable.
 *
 * Throws `SqliteFailure` only when the database is broken: then nobody may be told anything.
 */
export function runGroup(
  connection: SqliteConnection,
  requests: readonly GroupRequest[],
  committed: () => void,
): StoreAnswer[] {
  try {
    connection.run(BEGIN);
    const answers = requests.map((request) => runInGroup(connection, request));
    connection.run(COMMIT);
    committed();
    return answers;
  } catch (error) {
    if (!(error instanceof SqliteFailure) || error.broken) throw error;
    if (connection.inTransaction) connection.run(ROLLBACK);
    // The group is lost, often to one list (a full disk): each alone learns its own result.
    if (requests.length > 1) {
      return requests.flatMap((request) => runGroup(connection, [request], committed));
    }
    return requests.map(({ id }) => ({ id, ok: false, failure: error.failure }));
  }
}

function runInGroup(connection: SqliteConnection, request: GroupRequest): StoreAnswer {
  return request.kind === 'read' ? runRead(connection, request) : runList(connection, request);
}

/** Never loses the transaction; throws only when the database is broken. */
export function runRead(
  connection: SqliteConnection,
  request: { readonly id: number; readonly statement: Statement },
): StoreAnswer {
  try {
    return { id: request.id, ok: true, results: [connection.run(request.statement)] };
  } catch (error) {
    if (!(error instanceof SqliteFailure) || error.broken) throw error;
    return { id: request.id, ok: false, failure: error.failure };
  }
}

function runList(
  connection: SqliteConnection,
  request: Extract<GroupRequest, { kind: 'write' }>,
): StoreAnswer {
  connection.run(SAVEPOINT);
  try {
    const results = request.statements.map((statement, position): StatementResult => {
      const result = connection.run(statement, position);
      if (statement.expectRows !== undefined && result.rowsAffected !== statement.expectRows) {
        throw new SqliteFailure({
          sqliteCode: 0,
          message: 'unexpected number of rows',
          sql: statement.sql,
          statement: position,
          rows: { expected: statement.expectRows, actual: result.rowsAffected },
        });
      }
      return result;
    });
    connection.run(RELEASE);
    return { id: request.id, ok: true, results };
  } catch (error) {
    // SQLite ends the whole transaction by itself on some errors (disk full): the group has to know.
    if (!(error instanceof SqliteFailure) || error.broken || !connection.inTransaction) throw error;
    connection.run(ROLLBACK_LIST);
    connection.run(RELEASE);
    return { id: request.id, ok: false, failure: error.failure };
  }
}
