import type { LedgerClient } from '@hypha/client';
import type { Journal } from '@hypha/journal';
import { LIMITS } from './supervisor-limits.ts';

/** The cursor by which the ledger confirms receipts: one for the whole chain, in its order. */
export const LEDGER_RECEIPTS = { destination: 'ledger', topic: 'receipts' } as const;

/**
 * Brings receipts to the ledger in the order they were signed. What was not appended is
 * on disk until it is; sending twice changes nothing. Returns whether more are left.
 */
export async function deliverReceipts(
  journal: Journal,
  ledger: Pick<LedgerClient, 'appendEntry'>,
  signal: AbortSignal,
): Promise<boolean> {
  const { destination, topic } = LEDGER_RECEIPTS;
  const after = await journal.cursors.read(destination, topic);
  const receipts = await journal.runs.listReceipts(after, LIMITS.receiptsPerPage);
  let done = after;
  try {
    for (const { seq, envelope } of receipts) {
      await ledger.appendEntry(envelope, { signal });
      done = seq;
    }
  } finally {
    if (done > after) await journal.cursors.advance(destination, topic, done);
  }
  return receipts.length === LIMITS.receiptsPerPage;
}
