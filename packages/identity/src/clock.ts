/** Time and chance, given by the composition root so that tests can hold both. */
export interface Clock {
  /** Wall clock, epoch milliseconds. */
  nowMs(): number;
  monotonicMs(): number;
  /** A number in [0, 1) that spreads retries. */
  jitter(): number;
  /** Resolves early when the signal aborts; never rejects. */
  sleep(ms: number, signal: AbortSignal): Promise<void>;
}
