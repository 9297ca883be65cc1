import type { Store } from '@hypha/store';
import type { JournalTables } from './journal-schema.ts';

/** Runs dropped by one sweep, so that it never holds the store for long. */
const RUNS_PER_SWEEP = 500;

/** Who has to have confirmed a run before it may be forgotten. */
interface Destinations {
  /** Gets every event and the receipt of a run; the cursor is by run. */
  readonly events: string;
  /** Gets every receipt; the cursor is by receipt. */
  readonly receipts: { destination: string; topic: string };
}

/** Drops what nobody needs any more. Nothing undelivered is ever dropped. */
export class JournalSweeper {
  readonly #store: Store<JournalTables>;

  constructor(store: Store<JournalTables>) {
    this.#store = store;
  }

  /** Replay rows past their time: what they guard is expired for good. */
  async dropReplays(nowSeconds: number): Promise<void> {
    const query = this.#store.db.deleteFrom('replay').where('keepUntilSeconds', '<', nowSeconds);
    await this.#store.write([{ query }]);
  }

  /** Runs that ended before `endedBefore` are dropped whole (design §10). Returns how many. */
  async dropRuns(endedBefore: number, destinations: Destinations): Promise<number> {
    const { db } = this.#store;
    const { events, receipts } = destinations;
    const rows = await db
      .selectFrom('run')
      .innerJoin('receipt', 'receipt.run', 'run.run')
      .innerJoin('cursor as told', (join) =>
        join.onRef('told.topic', '=', 'run.run').on('told.destination', '=', events),
      )
      .innerJoin('cursor as proven', (join) =>
        join
          .on('proven.topic', '=', receipts.topic)
          .on('proven.destination', '=', receipts.destination),
      )
      .select('run.run')
      .where('run.endedAt', '<', endedBefore)
      .whereRef('told.seq', '>', 'run.seq')
      .whereRef('proven.seq', '>=', 'receipt.seq')
      .orderBy('run.position')
      .limit(RUNS_PER_SWEEP)
      .execute();
    const runs = rows.map(({ run }) => run);
    if (runs.length === 0) return 0;
    await this.#store.write([
      { query: db.deleteFrom('event').where('run', 'in', runs) },
      { query: db.deleteFrom('receipt').where('run', 'in', runs) },
      { query: db.deleteFrom('cursor').where('topic', 'in', runs) },
      { query: db.deleteFrom('run').where('run', 'in', runs) },
    ]);
    return runs.length;
  }
}
