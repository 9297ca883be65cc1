/** Bounds of a node's identity. Milliseconds end the names of times. */
export const IDENTITY_LIMITS = {
  /** An attempt to enrol, to read the authority or to deliver reports; then again after this, doubled. */
  attemptMsMax: 10_000,
  retryMsMin: 500,
  retryMsMax: 30_000,
  /** While an admin is waited for. */
  pendingRetryMsMax: 10_000,
  /** Pages of the log read for an admission. */
  admissionPages: 10,
  /** Undelivered reports are kept in segments, the oldest dropped whole: about 11 hours at one per 10 s. */
  reportsPerSegment: 128,
  segments: 32,
  reportsPerBatch: 100,
  /** A wanted report waits this long for more of what made it wanted. */
  reportSoonMs: 250,
  /** Pages of the authority read in one go; what is left comes with the next. */
  authorityPages: 100,
} as const;

/** Doubles with every attempt, from 1; the upper half is spread by `jitter` in [0, 1). */
export function retryDelayMs(attempt: number, jitter: number): number {
  const doubled = IDENTITY_LIMITS.retryMsMin * 2 ** Math.min(attempt - 1, 30);
  const ceiling = Math.min(doubled, IDENTITY_LIMITS.retryMsMax);
  return ceiling / 2 + (ceiling / 2) * jitter;
}
