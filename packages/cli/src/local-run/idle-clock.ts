import { setImmediate as nextTurn } from 'node:timers';
import type { Clock } from '@hypha/engine';

interface Sleeper {
  readonly dueMs: number;
  readonly wake: () => void;
}

/**
 * Time of a run that is only looked at: it passes when everything waits, and then at once. What does something
 * is announced with `during`, so a deadline never strikes it.
 */
export class IdleClock implements Clock {
  #nowMs: number;
  #busy = 0;
  #isLooking = false;
  readonly #sleepers = new Set<Sleeper>();

  /** @param startMs what the wall clock of the node says first, epoch milliseconds */
  constructor(startMs: number) {
    this.#nowMs = startMs;
  }

  nowMs(): number {
    return this.#nowMs;
  }

  /** Real, so that durations are told as they were. */
  monotonicMs(): number {
    return performance.now();
  }

  jitter(): number {
    return 0;
  }

  sleep(ms: number, signal: AbortSignal): Promise<void> {
    if (signal.aborted) return Promise.reject(signal.reason);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const sleeper = { dueMs: this.#nowMs + Math.max(0, ms), wake: resolve };
    const onAbort = () => {
      this.#sleepers.delete(sleeper);
      reject(signal.reason);
    };
    signal.addEventListener('abort', onAbort, { once: true });
    this.#sleepers.add(sleeper);
    this.#look();
    return promise.finally(() => signal.removeEventListener('abort', onAbort));
  }

  /** Time stands still while this is done. */
  async during<T>(work: () => Promise<T>): Promise<T> {
    this.#busy += 1;
    try {
      return await work();
    } finally {
      this.#busy -= 1;
      this.#look();
    }
  }

  /** For a run that was let go until then. Never back. */
  moveTo(atMs: number): void {
    this.#nowMs = Math.max(this.#nowMs, atMs);
  }

  /** In a later turn of the event loop: what was just woken says first whether it is busy. */
  #look(): void {
    if (this.#isLooking) return;
    this.#isLooking = true;
    nextTurn(() => {
      this.#isLooking = false;
      if (this.#busy > 0) return;
      const next = [...this.#sleepers].sort((a, b) => a.dueMs - b.dueMs)[0];
      if (next === undefined) return;
      this.#sleepers.delete(next);
      this.moveTo(next.dueMs);
      next.wake();
      this.#look();
    });
  }
}
