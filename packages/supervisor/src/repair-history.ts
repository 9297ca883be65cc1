import type { Clock } from './clock.ts';
import { backoffMs } from './supervisor-limits.ts';

interface Failure {
  readonly attempts: number;
  readonly notBeforeMs: number;
  readonly reason: string;
}

/** What failed lately, so that a hopeless resource is not hammered. How often what works may restart is its SAL's. */
export class RepairHistory {
  readonly #clock: Clock;
  readonly #bounds: { readonly min: number; readonly max: number };
  // rid → its failures in a row
  readonly #failures = new Map<string, Failure>();

  constructor(clock: Clock, pace: { readonly repairMsMin: number; readonly repairMsMax: number }) {
    this.#clock = clock;
    this.#bounds = { min: pace.repairMsMin, max: pace.repairMsMax };
  }

  isDue(rid: string): boolean {
    const failure = this.#failures.get(rid);
    return failure === undefined || this.#clock.monotonicMs() >= failure.notBeforeMs;
  }

  /** Why the last attempt failed; null when it did not, or when there was none. */
  reasonOf(rid: string): string | null {
    return this.#failures.get(rid)?.reason ?? null;
  }

  noteFailure(rid: string, reason: string): void {
    const attempts = (this.#failures.get(rid)?.attempts ?? 0) + 1;
    const pauseMs = backoffMs(attempts, this.#bounds, this.#clock.jitter());
    const notBeforeMs = this.#clock.monotonicMs() + pauseMs;
    this.#failures.set(rid, { attempts, notBeforeMs, reason });
  }

  /** It is as it should be, or gone. */
  forget(rid: string): void {
    this.#failures.delete(rid);
  }
}
