/** What crosses between the store and the thread that owns the database. Structured-clone values only. */

export interface Statement {
  readonly sql: string;
  readonly parameters: readonly unknown[];
}

export interface WriteStatement extends Statement {
  /** Rows the statement has to change or return; anything else undoes its whole list. */
  readonly expectRows?: number;
}

export type StoreRequest =
  | { readonly id: number; readonly kind: 'read'; readonly statement: Statement }
  | { readonly id: number; readonly kind: 'write'; readonly statements: readonly WriteStatement[] }
  /** One statement outside the group commit: transaction control and migrations, while opening. */
  | { readonly id: number; readonly kind: 'raw'; readonly statement: Statement }
  | { readonly id: number; readonly kind: 'close' };

export interface StatementResult {
  readonly rowsAffected: number;
  readonly rows: unknown[];
}

/** Why a request failed, before it becomes an error of the store. */
export interface StoreFailure {
  /** SQLite extended result code; 0 when SQLite was not the one that refused. */
  readonly sqliteCode: number;
  readonly message: string;
  readonly sql?: string;
  /** Position in the write list. */
  readonly statement?: number;
  readonly rows?: { readonly expected: number; readonly actual: number };
}

export type StoreAnswer =
  | { readonly id: number; readonly ok: true; readonly results: readonly StatementResult[] }
  | { readonly id: number; readonly ok: false; readonly failure: StoreFailure };

export type WorkerNotice =
  | { readonly type: 'opened' }
  | { readonly type: 'refused'; readonly failure: StoreFailure }
  | { readonly type: 'answers'; readonly answers: readonly StoreAnswer[]; readonly commits: number }
  /** The database can no longer be trusted to keep a promise (I/O error, corruption). */
  | { readonly type: 'broken'; readonly failure: StoreFailure }
  | { readonly type: 'closed' };

export interface WorkerSettings {
  readonly file: string;
  readonly lockWaitMs: number;
}
