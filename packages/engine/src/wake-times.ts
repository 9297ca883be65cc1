import { ENGINE_LIMITS } from './engine-limits.ts';
import { OVER } from './over.ts';
import type { Clock } from './ports.ts';
import { StepLeft } from './saga-error.ts';

/** The steps of a run that only wait for a time of day. They take no place among those that work. */
export class WakeTimes {
  readonly #clock: Clock;
  readonly #onChange: () => void;
  readonly #over = new AbortController();
  // step → wall clock it waits for, epoch milliseconds
  readonly #untilMs = new Map<number, number>();

  /** @param onChange called when a step begins to wait */
  constructor(clock: Clock, onChange: () => void) {
    this.#clock = clock;
    this.#onChange = onChange;
  }

  get count(): number {
    return this.#untilMs.size;
  }

  /** Wall clock of the first to wake, epoch milliseconds; `Infinity` when none waits. */
  get earliestMs(): number {
    let earliest = Number.POSITIVE_INFINITY;
    for (const untilMs of this.#untilMs.values()) earliest = Math.min(earliest, untilMs);
    return earliest;
  }

  /** Throws the signal's reason when aborted, `StepLeft` once closed. */
  async wait(step: number, untilMs: number, signal: AbortSignal): Promise<void> {
    const either = new AbortController();
    const leave = () => either.abort(signal.aborted ? signal.reason : new StepLeft());
    const over = this.#over.signal;
    if (signal.aborted || over.aborted) leave();
    signal.addEventListener('abort', leave, { once: true });
    over.addEventListener('abort', leave, { once: true });
    this.#untilMs.set(step, untilMs);
    this.#onChange();
    try {
      for (;;) {
        const leftMs = untilMs - this.#clock.nowMs();
        if (leftMs <= 0) return;
        // In parts, so that a wall clock that is set meanwhile is noticed.
        await this.#clock.sleep(Math.min(leftMs, ENGINE_LIMITS.sleepPartMsMax), either.signal);
      }
    } finally {
      signal.removeEventListener('abort', leave);
      over.removeEventListener('abort', leave);
      this.#untilMs.delete(step);
    }
  }

  /** Ends every wait with `StepLeft`: another guest or runner waits on. */
  close(): void {
    this.#over.abort(OVER);
  }
}
