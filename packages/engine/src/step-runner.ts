import type { GuestCall } from '@hypha/protocol';
import type { RidLock } from './rid-locks.ts';
import type { StepOutcome } from './run-record.ts';
import type { GuestContext } from './saga-context.ts';

/** A call as the script made it, with what `now()` answered it at that moment, epoch milliseconds. */
export interface ScriptCall extends GuestCall {
  readonly madeAtMs: number;
}

/**
 * Where a session's outcomes come from: effects (`step-effect.ts`), or predictions of a plan (`plan-steps.ts`). One is
 * made for every guest, and led through the record with it.
 */
export interface StepRunner {
  /** Calls that may run at once. One makes the order of outcomes that of the calls. */
  readonly concurrencyMax: number;
  /** What the call must have before it may run; absent: nothing. */
  locksOf?(call: ScriptCall): readonly RidLock[];
  /** True for a call that only waits for a time of day: it takes no place among those that run. */
  isWait?(call: ScriptCall): boolean;
  /**
   * Makes the outcome of a call that has none. It is recorded when this resolves. Throws only the ways out of
   * `saga-error.ts`.
   */
  run(call: ScriptCall): Promise<StepOutcome>;
  /** A recorded outcome is delivered instead: takes over what it says. Pure otherwise. */
  replay(call: ScriptCall, outcome: StepOutcome): void;
}

export type OpenStepRunner = (context: GuestContext) => StepRunner;
