import { HyphaError, type ReceiptPayload } from '@hypha/protocol';
import type { Store, Write } from '@hypha/store';
import type { LedgerDb } from './ledger-schema.ts';

/**
 * The end of each node's chain of receipts. A node that was set back to an old state, or hides a receipt, is
 * found out by its next one. A node whose journal was lost begins again at 1: that is let in, and the log shows it.
 */
export class ReceiptChains {
  readonly #store: Store<LedgerDb>;

  constructor(store: Store<LedgerDb>) {
    this.#store = store;
  }

  /**
   * Writes that move the end to a receipt; they fail as a whole when another one came meanwhile.
   * @throws HyphaError `E_CONFLICT` when it is not the next one of its node
   */
  async extendWrites(
    { node, seq, prev }: Pick<ReceiptPayload, 'node' | 'seq' | 'prev'>,
    digest: string,
  ): Promise<Write[]> {
    const { db } = this.#store;
    const end = await db
      .selectFrom('receipt_chains')
      .selectAll()
      .where('node', '=', node)
      .executeTakeFirst();
    // Whatever came before, under another key or before this ledger looked at it, is not known here.
    if (end === undefined) {
      const row = { node, seq, digest };
      return [{ query: db.insertInto('receipt_chains').values(row), expectRows: 1 }];
    }
    const isRestart = seq === 1 && prev === null;
    if (!isRestart && (seq !== end.seq + 1 || prev !== end.digest)) {
      throw new HyphaError(
        'E_CONFLICT',
        `receipt ${seq} of ${node} does not follow ${end.seq}, the last one that is known`,
        {
          where: { path: seq === end.seq + 1 ? 'prev' : 'seq' },
          hint: 'the node was set back to an old state, or a receipt is missing: compare with its log entries',
          details: { known: { seq: end.seq, digest: end.digest }, given: { seq, prev, digest } },
        },
      );
    }
    return [
      {
        query: db
          .updateTable('receipt_chains')
          .set({ seq, digest })
          .where('node', '=', node)
          .where('digest', '=', end.digest),
        expectRows: 1,
      },
    ];
  }
}
