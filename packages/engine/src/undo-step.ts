import { HyphaError } from '@hypha/protocol';
import { ENGINE_LIMITS } from './engine-limits.ts';
import { boundedText } from './json-bounds.ts';
import { OVER } from './over.ts';
import { callWithRetries } from './retry.ts';
import type { StepIntent } from './run-record.ts';
import { type SagaContext, stepContextOf } from './saga-context.ts';
import { EngineHalt } from './saga-error.ts';
import { withSecrets } from './secret-handles.ts';

/**
 * Brings back what was there before one step. Idempotent, whatever the step got done. Neither a cancel
 * nor the run's deadline ends it; it has its own. Never throws for a SAL's failure.
 * @param stop ends it early, where it is a task's purpose and not the way back
 * @returns null when undone, otherwise why something is left over
 */
export async function undoStep(
  context: SagaContext,
  intent: StepIntent,
  stop?: AbortSignal,
): Promise<string | null> {
  const verb = context.sals.findVerb(intent.verb);
  if (verb === undefined) return `this node no longer knows ${intent.verb}`;
  if (verb.undo === undefined) return `${intent.verb} cannot be undone`;
  const undo = verb.undo.bind(verb);
  const deadline = new AbortController();
  const signal = AbortSignal.any(stop === undefined ? [deadline.signal] : [deadline.signal, stop]);
  const over = new AbortController();
  context.clock.sleep(ENGINE_LIMITS.undoMsMax, over.signal).then(
    () => deadline.abort(new HyphaError('E_DEADLINE', `undo of step ${intent.step} took too long`)),
    () => undefined,
  );
  try {
    const args = verb.parse(withSecrets(context.grant, intent.args));
    await callWithRetries(
      {
        clock: context.clock,
        signal,
        attemptsMax: ENGINE_LIMITS.undoAttemptsMax,
        totalMsMax: ENGINE_LIMITS.undoMsMax,
        // There is nobody left to hand the error to, and every undo is idempotent.
        isRetryable: () => true,
        onFault: (attempt, error) =>
          context.onFault({ phase: 'undo', step: intent.step, verb: intent.verb, attempt, error }),
      },
      () => undo(stepContextOf(context, intent, signal), args, intent.before),
    );
    return null;
  } catch (error) {
    if (error instanceof EngineHalt) throw error;
    return reasonOf(error, intent.step);
  } finally {
    over.abort(OVER);
  }
}

function reasonOf(error: unknown, step: number): string {
  if (!(error instanceof HyphaError)) return `undo of step ${step} failed for no known reason`;
  return boundedText(`${error.code}: ${error.message}`, ENGINE_LIMITS.reasonCharsMax);
}
