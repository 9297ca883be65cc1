import type { Store } from '@hypha/store';
import type { JournalTables } from './journal-schema.ts';
import type { RunMemory } from './run-memory.ts';

/** Runs dropped by one sweep, so that it never holds the store for long. */
const RUNS_PER_SWEEP = 500;

/** Drops what nobody needs any more. Nothing undelivered is ever dropped. */
export class JournalSweeper {
  readonly #store: Store<JournalTables>;
  readonly #memory: RunMemory;

  constructor(store: Store<JournalTables>, memory: RunMemory) {
    this.#store = store;
    this.#memory = memory;
  }

  /**
   * Runs that ended before `endedBefore` are dropped whole (design §10), once the coordinator has all of them
   * and receipts up to `receiptSeq` are where they belong. A failed run of which something is kept stays: only
   * its journal says how that is undone. Returns how many.
   */
  async dropRuns(endedBefore: number, receiptSeq: number): Promise<number> {
    const { db } = this.#store;
    const rows = await db
      .selectFrom('run')
      .innerJoin('receipt', 'receipt.run', 'run.run')
      .select('run.run')
      .where('run.endedAt', '<', endedBefore)
      .whereRef('run.told', '>=', 'run.due')
      .where('receipt.seq', '<=', receiptSeq)
      .where(({ not, exists, selectFrom }) =>
        not(
          exists(
            selectFrom('provisional')
              .select('provisional.run')
              .whereRef('provisional.run', '=', 'run.run'),
          ),
        ),
      )
      .orderBy('run.position')
      .limit(RUNS_PER_SWEEP)
      .execute();
    const runs = rows.map(({ run }) => run);
    if (runs.length === 0) return 0;
    await this.#store.write([
      { query: db.deleteFrom('event').where('run', 'in', runs) },
      { query: db.deleteFrom('receipt').where('run', 'in', runs) },
      { query: db.deleteFrom('runSecret').where('run', 'in', runs) },
      { query: db.deleteFrom('plan').where('run', 'in', runs) },
      { query: db.deleteFrom('undone').where('run', 'in', runs) },
      { query: db.deleteFrom('run').where('run', 'in', runs) },
    ]);
    this.#memory.forget(runs);
    return runs.length;
  }
}
