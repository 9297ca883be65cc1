import { HyphaError } from '@hypha/protocol';
import type { Clock } from './ports.ts';

export interface RunDeadlineOptions {
  readonly clock: Clock;
  readonly run: string;
  readonly wallMs: number;
  /** Wall clock of the run's first start, whoever started it; undefined: now. */
  readonly startedAtMs: number | undefined;
  /** How long was spent on fetching so far, milliseconds: so much longer the run may take. */
  readonly preparedMs: number;
}

/** When a run has to end: `limits.wallMs` after its first start, not counting what it takes to fetch things. */
export class RunDeadline {
  readonly #clock: Clock;
  readonly #run: string;
  readonly #wallMs: number;
  /** Monotonic: a wall clock that is set back does not lengthen a run. */
  #endsAtMonotonicMs: number;
  #preparing = 0;
  /** While something is fetched: up to here, monotonic, it is off the clock. */
  #preparedToMs = 0;
  #prepared = Promise.withResolvers<void>();

  constructor({ clock, run, wallMs, startedAtMs, preparedMs }: RunDeadlineOptions) {
    this.#clock = clock;
    this.#run = run;
    this.#wallMs = wallMs;
    const allowedMs = wallMs + preparedMs;
    const nowMs = clock.nowMs();
    const leftMs = Math.min(allowedMs, (startedAtMs ?? nowMs) + allowedMs - nowMs);
    this.#endsAtMonotonicMs = clock.monotonicMs() + leftMs;
  }

  /** Wall clock, whole epoch milliseconds, if nothing else is fetched. */
  get endsAtMs(): number {
    return Math.ceil(this.#clock.nowMs() + this.#leftMs);
  }

  get #leftMs(): number {
    return this.#endsAtMonotonicMs - this.#clock.monotonicMs();
  }

  /** Off the clock. Also answers how long it took, in whole milliseconds. */
  async prepare(fetch: () => Promise<void>): Promise<number> {
    // What is fetched side by side takes its time once.
    if (this.#preparing === 0) this.#preparedToMs = this.#clock.monotonicMs();
    this.#preparing += 1;
    let creditMs = 0;
    try {
      await fetch();
    } finally {
      creditMs = this.#spentSince(this.#preparedToMs);
      this.#preparedToMs = this.#clock.monotonicMs();
      this.#endsAtMonotonicMs += creditMs;
      this.#preparing -= 1;
      this.#prepared.resolve();
      this.#prepared = Promise.withResolvers();
    }
    return creditMs;
  }

  #spentSince(begunMs: number): number {
    return Math.max(0, Math.round(this.#clock.monotonicMs() - begunMs));
  }

  /** Calls back with `E_DEADLINE` when it is reached, at once when it is already. */
  watch(over: AbortSignal, onReached: (error: HyphaError) => void): void {
    const reached = () => {
      const message = `${this.#run} took longer than ${this.#wallMs} ms`;
      onReached(new HyphaError('E_DEADLINE', message));
    };
    if (this.#leftMs <= 0) reached();
    else this.#wait(over).then(reached, () => undefined);
  }

  /** Rejects once `over`. */
  async #wait(over: AbortSignal): Promise<void> {
    while (this.#leftMs > 0 || this.#preparing > 0) {
      if (this.#leftMs > 0) await this.#clock.sleep(this.#leftMs, over);
      else await this.#prepared.promise;
      over.throwIfAborted();
    }
  }
}
