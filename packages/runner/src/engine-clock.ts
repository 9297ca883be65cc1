import { setTimeout as sleep } from 'node:timers/promises';
import type { Clock } from '@hypha/engine';

/** This machine's clocks. */
export const engineClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  sleep: async (ms, signal) => {
    signal.throwIfAborted();
    try {
      await sleep(ms, undefined, { signal });
    } catch (error) {
      // Node rejects with an AbortError of its own; the port promises the signal's reason.
      signal.throwIfAborted();
      throw error;
    }
  },
  jitter: () => Math.random(),
};
