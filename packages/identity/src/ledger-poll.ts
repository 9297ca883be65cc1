import type { Clock } from './clock.ts';
import { IDENTITY_LIMITS as LIMITS, retryDelayMs } from './limits.ts';

interface LedgerPollDeps {
  /** One reading. Answers whether what was read is all that the ledger has. */
  readonly read: (signal: AbortSignal) => Promise<boolean>;
  readonly clock: Clock;
  /** Every failed reading, with its reason. */
  readonly onFailure: (error: unknown) => void;
  /** Monotonic time at which the copy was last known to be the ledger's newest. */
  readonly freshAtMs: number;
}

/** Keeps a copy of something the ledger has: in the background, and at once for work that has to be judged by it. */
export class LedgerPoll {
  readonly #deps: LedgerPollDeps;
  #freshAtMs: number;
  #failures = 0;
  #retryAtMs = Number.NEGATIVE_INFINITY;
  #reading: Promise<void> | undefined;

  constructor(deps: LedgerPollDeps) {
    this.#deps = deps;
    this.#freshAtMs = deps.freshAtMs;
  }

  /**
   * Best effort to be at most `maxAgeMs` behind the ledger. Waits at most twice `timeoutMs`, and not at all while
   * the ledger is known to be away. Never rejects; answers whether the copy is that fresh.
   */
  async refresh(wanted: {
    readonly maxAgeMs: number;
    readonly timeoutMs: number;
  }): Promise<boolean> {
    const { clock } = this.#deps;
    const { maxAgeMs, timeoutMs } = wanted;
    const since = clock.monotonicMs() - maxAgeMs;
    const isFresh = () => this.#freshAtMs >= since;
    if (isFresh()) return true;
    const isOthers = this.#reading !== undefined;
    if (!isOthers && clock.monotonicMs() < this.#retryAtMs) return false;
    const { signal } = new AbortController();
    await this.#readWithin(timeoutMs, signal);
    // One that others had begun may have asked too early.
    if (isOthers && !isFresh() && this.#failures === 0) await this.#readWithin(timeoutMs, signal);
    return isFresh();
  }

  /** Keeps up with the ledger until the signal aborts. */
  async run(pollMs: number, signal: AbortSignal): Promise<void> {
    const { clock } = this.#deps;
    while (!signal.aborted) {
      await this.#readWithin(LIMITS.attemptMsMax, signal);
      const delayMs = this.#failures === 0 ? pollMs : this.#retryAtMs - clock.monotonicMs();
      await clock.sleep(Math.max(0, delayMs), signal);
    }
  }

  /** Leaves the reading to itself after that time, or when the signal aborts. */
  async #readWithin(timeoutMs: number, signal: AbortSignal): Promise<void> {
    const done = new AbortController();
    const limit = this.#deps.clock.sleep(timeoutMs, AbortSignal.any([signal, done.signal]));
    await Promise.race([this.#read(), limit]);
    done.abort();
  }

  /** One reading at a time; callers share it. Never rejects. */
  #read(): Promise<void> {
    this.#reading ??= this.#readOnce().finally(() => {
      this.#reading = undefined;
    });
    return this.#reading;
  }

  async #readOnce(): Promise<void> {
    const { clock, read, onFailure } = this.#deps;
    const askedAtMs = clock.monotonicMs();
    try {
      const isComplete = await read(AbortSignal.timeout(LIMITS.attemptMsMax));
      this.#failures = 0;
      this.#retryAtMs = Number.NEGATIVE_INFINITY;
      if (isComplete) this.#freshAtMs = askedAtMs;
    } catch (error) {
      this.#failures++;
      this.#retryAtMs = clock.monotonicMs() + retryDelayMs(this.#failures, clock.jitter());
      onFailure(error);
    }
  }
}
