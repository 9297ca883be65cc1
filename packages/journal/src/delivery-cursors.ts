import type { Store } from '@hypha/store';
import type { JournalTables } from './journal-schema.ts';

/** What the coordinator has not confirmed of one run. */
export interface Backlog {
  readonly run: string;
  /** Came over HTTP: the coordinator may not know the run at all. */
  readonly source: string;
  /** Events it has; 0 for none. */
  readonly told: number;
  /** Events there are. */
  readonly seq: number;
  /** The run ended, so a receipt follows the last event. */
  readonly ended: boolean;
}

/** How far others have confirmed what this node tells them. A lost confirmation means telling twice. */
export class DeliveryCursors {
  readonly #store: Store<JournalTables>;

  constructor(store: Store<JournalTables>) {
    this.#store = store;
  }

  /** Runs with something to tell the coordinator, oldest first. */
  async listBacklog(limit: number): Promise<Backlog[]> {
    const rows = await this.#store.db
      .selectFrom('run')
      .select(['run', 'source', 'told', 'seq', 'endedAt'])
      .whereRef('told', '<', 'due')
      .orderBy('position')
      .limit(limit)
      .execute();
    return rows.map(({ endedAt, ...row }) => ({ ...row, ended: endedAt !== null }));
  }

  /** The coordinator has this much of each run: its events, and the receipt as one more. Never goes back. */
  async confirm(
    confirmed: readonly { readonly run: string; readonly told: number }[],
  ): Promise<void> {
    const { db } = this.#store;
    await this.#store.write(
      confirmed.map(({ run, told }) => ({
        query: db.updateTable('run').set({ told }).where('run', '=', run).where('told', '<', told),
      })),
    );
  }

  /** The coordinator has lost what it confirmed: it is told again from there. */
  async rewind(run: string, told: number): Promise<void> {
    const { db } = this.#store;
    const query = db.updateTable('run').set({ told }).where('run', '=', run);
    await this.#store.write([{ query: query.where('told', '>', told) }]);
  }

  /** Up to where a destination has confirmed what it is told in order; 0 for nothing. */
  async read(destination: string, topic: string): Promise<number> {
    const row = await this.#store.db
      .selectFrom('cursor')
      .select('seq')
      .where('destination', '=', destination)
      .where('topic', '=', topic)
      .executeTakeFirst();
    return row?.seq ?? 0;
  }

  /** Never goes back. */
  async advance(destination: string, topic: string, seq: number): Promise<void> {
    const query = this.#store.db
      .insertInto('cursor')
      .values({ destination, topic, seq })
      .onConflict((row) =>
        row.columns(['destination', 'topic']).doUpdateSet({ seq }).where('cursor.seq', '<', seq),
      );
    await this.#store.write([{ query }]);
  }
}
