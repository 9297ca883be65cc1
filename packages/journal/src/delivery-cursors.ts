import type { Store } from '@hypha/store';
import type { JournalTables } from './journal-schema.ts';

/** What one destination has not confirmed of one run. */
export interface Backlog {
  readonly run: string;
  /** Came over HTTP: the destination may not know the run at all. */
  readonly source: string;
  /** Events the destination has; 0 for none. */
  readonly sent: number;
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

  /** Runs with something to tell, oldest first. The receipt counts as one more after the last event. */
  async listBacklog(destination: string, limit: number): Promise<Backlog[]> {
    const { db } = this.#store;
    const rows = await db
      .selectFrom('run')
      .leftJoin('cursor', (join) =>
        join.onRef('cursor.topic', '=', 'run.run').on('cursor.destination', '=', destination),
      )
      .select(({ fn, val, eb }) => [
        'run.run',
        'run.source',
        'run.seq',
        'run.endedAt',
        fn.coalesce(eb.ref('cursor.seq'), val(0)).as('sent'),
      ])
      .where((eb) =>
        eb.or([
          eb('cursor.seq', 'is', null),
          eb('cursor.seq', '<', eb.ref('run.seq')),
          eb.and([eb('run.endedAt', 'is not', null), eb('cursor.seq', '<=', eb.ref('run.seq'))]),
        ]),
      )
      .orderBy('run.position')
      .limit(limit)
      .execute();
    return rows.map(({ run, source, seq, endedAt, sent }) => ({
      run,
      source,
      seq,
      sent: Number(sent),
      ended: endedAt !== null,
    }));
  }

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
  async advance(
    destination: string,
    confirmed: readonly { topic: string; seq: number }[],
  ): Promise<void> {
    const writes = confirmed.map(({ topic, seq }) => ({
      query: this.#store.db
        .insertInto('cursor')
        .values({ destination, topic, seq })
        .onConflict((row) =>
          row.columns(['destination', 'topic']).doUpdateSet({ seq }).where('cursor.seq', '<', seq),
        ),
    }));
    await this.#store.write(writes);
  }
}
