/** The parts of a step: plan, prepare, apply and probe, each under its deadline and tried again while that may help. */
import { HyphaError, type Json } from '@hypha/protocol';
import type { StepContext } from '@hypha/sal';
import { withDeadline } from './deadline.ts';
import { ENGINE_LIMITS } from './engine-limits.ts';
import type { Fault } from './ports.ts';
import { callWithRetries, isRetryable } from './retry.ts';
import { type SagaContext, stepContextOf } from './saga-context.ts';
import type { StepCall } from './step-call.ts';

/**
 * One part of a step, tried again while its error says that it may succeed. Throws `E_TIMEOUT` when it takes longer
 * than its verb allows.
 * @param start gets a context of its own: with the signal that ends this part
 */
export async function attempt<T>(
  context: SagaContext,
  call: StepCall,
  phase: Fault['phase'],
  start: (step: StepContext) => Promise<T>,
): Promise<T> {
  const { clock, stop } = context;
  const { verb, class: verbClass } = call.verb;
  // The first try may have happened: only the signer can say that a second does no harm.
  const isRepeatable =
    phase !== 'apply' || verbClass !== 'once' || isDeclaredIdempotent(call.rawArgs);
  const ms = partMsMax(call, phase);
  const label = call.name === null ? verb : `${verb} ${call.name}`;
  const error = () => new HyphaError('E_TIMEOUT', `${label} took longer than ${ms} ms`);
  return await withDeadline({ clock, signal: stop, ms, error }, async (signal) => {
    const step = stepContextOf(context, call, signal);
    return await callWithRetries(
      {
        clock,
        signal,
        attemptsMax: ENGINE_LIMITS.tryAttemptsMax,
        totalMsMax: phase === 'prepare' ? ms : ENGINE_LIMITS.tryMsMax,
        isRetryable: (thrown) => isRepeatable && isRetryable(thrown),
        onFault: (tries, thrown) =>
          context.onFault({ phase, step: call.step, verb, attempt: tries, error: thrown }),
      },
      () => start(step),
    );
  });
}

function partMsMax({ verb, args }: StepCall, phase: Fault['phase']): number {
  if (phase === 'prepare') return ENGINE_LIMITS.prepareMsMax;
  return verb.deadlineMs?.(args) ?? ENGINE_LIMITS.stepMsMax;
}

/** The signer said that to repeat the call does no harm. */
export function isDeclaredIdempotent(args: Json): boolean {
  if (typeof args !== 'object' || args === null || Array.isArray(args)) return false;
  return (args as { readonly idempotent?: Json }).idempotent === true;
}
