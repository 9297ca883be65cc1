import { randomInt } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';

/** Time and chance, as a collaborator. */
export interface Clock {
  /** Wall clock, epoch milliseconds. */
  nowMs(): number;
  monotonicMs(): number;
  /** In [0, 1). */
  random(): number;
  /** Resolves after `ms`, or at once when the signal aborts. Never rejects. */
  sleep(ms: number, signal: AbortSignal): Promise<void>;
}

export const systemClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  random: () => randomInt(2 ** 32) / 2 ** 32,
  sleep: (ms, signal) =>
    delay(ms, undefined, { signal }).then(
      () => undefined,
      () => undefined,
    ),
};
