import { setTimeout as delay } from 'node:timers/promises';

/** Time and chance, so that tests can hold both. */
export interface Clock {
  /** Wall clock, epoch milliseconds: for records, never for measuring. */
  nowMs(): number;
  monotonicMs(): number;
  /** A number in [0, 1) that spreads retries. */
  jitter(): number;
  /** Resolves early when the signal aborts. */
  sleep(ms: number, signal: AbortSignal): Promise<void>;
}

export const systemClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  jitter: () => Math.random(),
  sleep: (ms, signal) => delay(ms, undefined, { signal }).catch(() => undefined),
};
