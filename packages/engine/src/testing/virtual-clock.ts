import { setImmediate } from 'node:timers/promises';
import type { Clock } from '../ports.ts';

/** Longer sleeps are deadlines: they end only when a test moves the clock. */
const PASSING_MS_MAX = 10_000;

/** Rounds of the event loop without a new sleep after which nobody is taken to be at work. */
const QUIET_ROUNDS = 4;

interface Sleeper {
  /** Monotonic. */
  readonly untilMs: number;
  readonly isPassing: boolean;
  readonly wake: () => void;
}

/** Time that passes only when everybody waits for it, or when a test says so. */
export class VirtualClock implements Clock {
  #wallMs = 1_800_000_000_000;
  #monotonicMs = 0;
  readonly #sleepers = new Set<Sleeper>();
  #isPassing = false;
  #activity = 0;

  nowMs(): number {
    return this.#wallMs;
  }
  monotonicMs(): number {
    return this.#monotonicMs;
  }
  jitter(): number {
    return 0.5;
  }

  async sleep(ms: number, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    this.#activity += 1;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const isPassing = ms <= PASSING_MS_MAX;
    const sleeper = { untilMs: this.#monotonicMs + ms, isPassing, wake: resolve };
    this.#sleepers.add(sleeper);
    const onAbort = () => {
      this.#activity += 1;
      reject(signal.reason);
    };
    signal.addEventListener('abort', onAbort, { once: true });
    if (isPassing) void this.#pass();
    try {
      await promise;
    } finally {
      this.#sleepers.delete(sleeper);
      signal.removeEventListener('abort', onAbort);
    }
  }

  /** Wakes whom it is time for. Set back, only the wall clock moves. */
  advance(ms: number): void {
    this.#activity += 1;
    this.#wallMs += ms;
    this.#monotonicMs += Math.max(0, ms);
    const due = [...this.#sleepers].filter(({ untilMs }) => untilMs <= this.#monotonicMs);
    for (const { wake } of due.sort((left, right) => left.untilMs - right.untilMs)) wake();
  }

  async #pass(): Promise<void> {
    if (this.#isPassing) return;
    this.#isPassing = true;
    for (;;) {
      await this.#quiet();
      const times = [...this.#sleepers]
        .filter((each) => each.isPassing)
        .map((each) => each.untilMs);
      if (times.length === 0) break;
      this.advance(Math.max(0, Math.min(...times) - this.#monotonicMs));
    }
    this.#isPassing = false;
  }

  async #quiet(): Promise<void> {
    for (let quiet = 0; quiet < QUIET_ROUNDS; ) {
      const seen = this.#activity;
      await setImmediate();
      quiet = seen === this.#activity ? quiet + 1 : 0;
    }
  }
}
