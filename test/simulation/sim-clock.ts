import { setImmediate } from 'node:timers/promises';
import type { Clock } from '@hypha/engine';
import type { SeededRandom } from '@hypha/testkit';

interface Sleeper {
  readonly atMs: number;
  /** Who asked first wakes first. */
  readonly order: number;
  readonly wake: () => void;
}

/** Turns of the event loop after which nothing that was to happen now is left to happen. */
const TURNS = 4;

/**
 * Time that passes only when nobody has anything left to do now: the next to wake decides what the time is. One
 * for a whole simulation, so that the same seed gives the same order.
 */
export class SimClock implements Clock {
  #nowMs = 1_800_000_000_000;
  #order = 0;
  #sleepers: Sleeper[] = [];
  readonly #random: SeededRandom;

  constructor(random: SeededRandom) {
    this.#random = random;
  }

  nowMs(): number {
    return Math.floor(this.#nowMs);
  }

  monotonicMs(): number {
    return this.#nowMs;
  }

  jitter(): number {
    return this.#random.fraction();
  }

  async sleep(ms: number, signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const sleeper = { atMs: this.#nowMs + Math.max(0, ms), order: this.#order++, wake: resolve };
    this.#sleepers.push(sleeper);
    signal?.addEventListener('abort', () => {
      this.#sleepers = this.#sleepers.filter((each) => each !== sleeper);
      reject(signal.reason);
    });
    await promise;
  }

  /** Lets time pass until the condition holds. Throws when nobody is left to wake, or `limitMs` is over. */
  async run(isOver: () => boolean, limitMs: number): Promise<void> {
    const endMs = this.#nowMs + limitMs;
    for (;;) {
      for (let turn = 0; turn < TURNS; turn++) await setImmediate();
      if (isOver()) return;
      const next = this.#takeNext();
      if (next === undefined) throw new Error('everybody waits for ever');
      if (next.atMs > endMs) throw new Error(`not over after ${limitMs} ms of simulated time`);
      this.#nowMs = Math.max(this.#nowMs, next.atMs);
      next.wake();
    }
  }

  #takeNext(): Sleeper | undefined {
    let next: Sleeper | undefined;
    for (const each of this.#sleepers) {
      const isSooner =
        next === undefined ||
        each.atMs < next.atMs ||
        (each.atMs === next.atMs && each.order < next.order);
      if (isSooner) next = each;
    }
    this.#sleepers = this.#sleepers.filter((each) => each !== next);
    return next;
  }
}
