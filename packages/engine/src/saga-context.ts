import type { HyphaError, Verifier } from '@hypha/protocol';
import type { Sals, StepContext } from '@hypha/sal';
import type { JournalWriter } from './journal-writer.ts';
import type { KeptRuns } from './kept-runs.ts';
import type { Clock, Fault, RunGrant } from './ports.ts';
import type { RunDeadline } from './run-deadline.ts';
import type { RunRecord } from './run-record.ts';
import { RunFailure } from './saga-error.ts';
import type { WakeTimes } from './wake-times.ts';

/** What every part of one run's engine shares. */
export interface SagaContext {
  readonly grant: RunGrant;
  readonly record: RunRecord;
  readonly writer: JournalWriter;
  readonly kept: KeptRuns;
  readonly sals: Sals;
  readonly clock: Clock;
  readonly verifier: Verifier;
  /**
   * Cancelled, past the deadline, or failing already: aborts the calls in flight. Its reason is the `HyphaError`
   * the run ends with.
   */
  readonly stop: AbortSignal;
  readonly deadline: RunDeadline;
  /** Finish the calls in flight, start no other, let another runner take over. */
  readonly drain: AbortSignal;
  readonly onFault: (fault: Fault) => void;
}

/** What the steps of one guest share. Its `stop` ends them, and not only with the run. */
export interface GuestContext extends SagaContext {
  /** Steps that wait for a time of day. */
  readonly wakeTimes: WakeTimes;
}

/** Throws `RunFailure` once the run was stopped. */
export function assertGoingOn(context: SagaContext): void {
  if (context.stop.aborted) throw new RunFailure(context.stop.reason as HyphaError);
}

export function stepContextOf(
  context: SagaContext,
  step: { step: number; rid: string | null; name: string | null },
  signal: AbortSignal,
): StepContext {
  const { run, payload } = context.grant;
  return {
    realm: payload.realm,
    deployment: payload.deployment,
    run,
    step: step.step,
    rid: step.rid,
    name: step.name,
    signal,
    op: `${run}/${step.step}`,
  };
}
