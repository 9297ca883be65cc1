import { isHyphaError } from '@hypha/protocol';

/** It was not reached, was busy, or did not answer in time: routine, and said nothing that could be wrong. */
export function isLedgerAway(error: unknown): boolean {
  // What a reading that took too long is aborted with.
  if (error instanceof Error && error.name === 'TimeoutError') return true;
  return isHyphaError(error) && error.retryable;
}
