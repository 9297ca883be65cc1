import type { Clock } from './clock.ts';
import { backoffMs, LIMITS } from './supervisor-limits.ts';

interface Trouble {
  attempts: number;
  lastMs: number;
  notBeforeMs: number;
  reason: string | null;
}

/** How often each resource had to be worked on lately, so that a hopeless one is not hammered. */
export class RepairHistory {
  readonly #clock: Clock;
  // rid → its last attempts
  readonly #troubles = new Map<string, Trouble>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  isDue(rid: string): boolean {
    const trouble = this.#troubles.get(rid);
    return trouble === undefined || this.#clock.monotonicMs() >= trouble.notBeforeMs;
  }

  /** Why the last attempt failed; null when it did not, or when there was none. */
  reasonOf(rid: string): string | null {
    return this.#troubles.get(rid)?.reason ?? null;
  }

  /** Work was done on it; the next waits, also after success, for things that do not stay up. */
  note(rid: string, reason: string | null): void {
    const now = this.#clock.monotonicMs();
    const attempts = (this.#troubles.get(rid)?.attempts ?? 0) + 1;
    const bounds = { min: LIMITS.repairMsMin, max: LIMITS.repairMsMax };
    const notBeforeMs = now + backoffMs(attempts, bounds, this.#clock.jitter());
    this.#troubles.set(rid, { attempts, lastMs: now, notBeforeMs, reason });
  }

  /** It is as it should be. Forgotten once that has lasted. */
  noteWhole(rid: string): void {
    const trouble = this.#troubles.get(rid);
    if (trouble === undefined) return;
    trouble.reason = null;
    const wholeMs = this.#clock.monotonicMs() - trouble.lastMs;
    if (wholeMs >= LIMITS.repairSteadyMs) this.#troubles.delete(rid);
  }

  forget(rid: string): void {
    this.#troubles.delete(rid);
  }
}
