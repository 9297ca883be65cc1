import { HyphaError } from '@hypha/protocol';
import { runGroup, runRead } from '../group-commit.ts';
import type { Migration } from '../migration.ts';
import { SqliteConnection } from '../sqlite-connection.ts';
import type { StatementResult } from '../sqlite-message.ts';
import { openStoreOn, type Store, type StoreLink } from '../store.ts';
import { requestError } from '../store-failure.ts';
import type { RequestBody } from '../worker-link.ts';

/**
 * A store in the memory of this thread: the same SQL and the same transactions, with no file, no thread and no
 * time of its own, so that whatever uses it does the same in every run of a simulation.
 */
export class MemoryDatabase {
  readonly #connection = new SqliteConnection({ file: ':memory:', lockWaitMs: 0 });

  /** As often as its owner is started again: what was written stays. */
  async open<DB>(options: {
    readonly migrations: readonly Migration[];
    /** Once this is true, nothing that was asked is answered any more. */
    readonly isDead?: () => boolean;
  }): Promise<Store<DB>> {
    const link = new MemoryLink(this.#connection, options.isDead ?? (() => false));
    return await openStoreOn<DB>(link, { file: ':memory:', migrations: options.migrations });
  }

  close(): void {
    this.#connection.close();
  }
}

class MemoryLink implements StoreLink {
  readonly pending = 0;
  commits = 0;
  readonly #connection: SqliteConnection;
  readonly #isDead: () => boolean;
  #isClosed = false;

  constructor(connection: SqliteConnection, isDead: () => boolean) {
    this.#connection = connection;
    this.#isDead = isDead;
  }

  async request(body: RequestBody): Promise<readonly StatementResult[]> {
    if (this.#isDead()) await new Promise<never>(() => undefined);
    if (this.#isClosed) throw new HyphaError('E_UNAVAILABLE', 'the store is closed');
    const [answer] =
      body.kind === 'write'
        ? runGroup(this.#connection, [{ ...body, id: 0 }], () => this.commits++)
        : body.kind === 'close'
          ? []
          : [runRead(this.#connection, { ...body, id: 0 })];
    if (answer === undefined) return [];
    if (!answer.ok) throw requestError(answer.failure, ':memory:');
    return answer.results;
  }

  async close(): Promise<void> {
    this.#isClosed = true;
  }
}
