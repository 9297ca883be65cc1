export type { Backlog, DeliveryCursors } from './delivery-cursors.ts';
export {
  type Journal,
  type JournalListener,
  type JournalOptions,
  type Lane,
  openJournal,
} from './journal.ts';
export { JOURNAL_LIMITS } from './journal-limits.ts';
export type { JournalSweeper } from './journal-sweeper.ts';
export type { SignedReceipt } from './receipt-chain.ts';
export type { DesiredWorld, ProvisionalEntry, RecordBook, ResourceEntry } from './record-book.ts';
export type { ProvisionalState, RecordState, RecordStatus } from './record-swap.ts';
export type { ReplayHorizon } from './replay-horizon.ts';
export type { Admission, Admitted } from './run-admission.ts';
export type { Cancellation, Cancelled } from './run-cancellation.ts';
export type { RunEntry, RunSource } from './run-entry.ts';
export type { RunFilter, RunReader } from './run-reader.ts';
export { type Author, isClaimable, type RunnerAuthor } from './run-standing.ts';
export type { GivenSecret, SealedEntry, SecretBook, SecretEntry } from './secret-book.ts';
