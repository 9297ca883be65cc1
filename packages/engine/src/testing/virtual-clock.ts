import { setImmediate } from 'node:timers/promises';
import type { Clock } from '../ports.ts';

/** Longer sleeps are deadlines: they end only when a test moves the clock. */
const BACK_OFF_MS_MAX = 10_000;

/** Time that passes only when somebody waits for a retry, or when a test says so. */
export class VirtualClock implements Clock {
  #nowMs = 1_800_000_000_000;
  readonly #sleepers = new Set<{ untilMs: number; wake: () => void }>();

  nowMs(): number {
    return this.#nowMs;
  }
  monotonicMs(): number {
    return this.#nowMs;
  }
  jitter(): number {
    return 0.5;
  }

  async sleep(ms: number, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (ms <= BACK_OFF_MS_MAX) {
      await setImmediate();
      this.advance(ms);
      signal.throwIfAborted();
      return;
    }
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const sleeper = { untilMs: this.#nowMs + ms, wake: resolve };
    this.#sleepers.add(sleeper);
    signal.addEventListener('abort', () => reject(signal.reason), { once: true });
    await promise.finally(() => this.#sleepers.delete(sleeper));
  }

  advance(ms: number): void {
    this.#nowMs += ms;
    for (const sleeper of this.#sleepers) if (sleeper.untilMs <= this.#nowMs) sleeper.wake();
  }
}
