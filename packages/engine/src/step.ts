/** What a step of an apply and one of a plan have in common: from a hostile guest's call to a recorded outcome. */
import { HyphaError, type Json, LIMITS, type Rid, type StepError } from '@hypha/protocol';
import { ENGINE_LIMITS } from './engine-limits.ts';
import { boundedText, isTooDeep, jsonBytes, wellFormed } from './json-bounds.ts';
import type { ResourceAccount } from './resource-account.ts';
import { REFUSED, type StepIntent, type StepOutcome } from './run-record.ts';
import { assertGoingOn, type GuestContext } from './saga-context.ts';
import { isWayOut } from './saga-error.ts';
import { parseCall, recordedArgs, type StepCall } from './step-call.ts';
import type { ScriptCall } from './step-runner.ts';

/** How the outcome of an admitted call is made: by an effect (`step-effect.ts`) or by prediction (`plan-steps.ts`). */
export interface StepMaking {
  readonly account: ResourceAccount;
  /** True for what this run has declared or the committed record holds. */
  isDeclared(rid: Rid): boolean;
  /** Makes what the script gets. `intent`: to be recorded with it, when it is not on record yet. */
  execute(call: StepCall): Promise<{ readonly result: Json; readonly intent?: StepIntent }>;
}

/**
 * Runs a step to its outcome, which is recorded when this resolves and durable with the next append.
 * Throws `RunFailure` when the run was stopped meanwhile.
 */
export async function runStep(
  context: GuestContext,
  making: StepMaking,
  call: ScriptCall,
): Promise<StepOutcome> {
  const { record, writer, clock } = context;
  const begunMs = clock.monotonicMs();
  const step = call.call;
  /** Taken when the outcome is recorded, so that time never goes back for the script. */
  const times = () => ({
    durationMs: Math.max(0, Math.round(clock.monotonicMs() - begunMs)),
    nowMs: Math.max(record.nowMs, clock.nowMs()),
  });
  let admitted: StepCall | undefined;
  let intent: StepIntent | undefined;
  let outcome: StepOutcome;
  try {
    admitted = admitCall(context, making, call);
    const made = await making.execute(admitted);
    intent = made.intent;
    const { rid, uses } = admitted;
    if (rid !== null && uses !== null) making.account.set(rid, uses);
    outcome = { type: 'step-result', step, result: made.result, ...times() };
  } catch (error) {
    if (isWayOut(error)) throw error;
    // What a call says when it was aborted is not an outcome: nobody is there to hear it.
    assertGoingOn(context);
    if (admitted?.rid != null && admitted.uses !== null) making.account.release(admitted.rid);
    outcome = { type: 'step-error', step, error: toStepError(error, call), ...times() };
  }
  // A call without effect has its intent only so that a replay is held to it: never without outcome.
  if (record.intents.has(step)) await writer.buffer(outcome);
  else await writer.buffer(intent ?? refusalOf(call), outcome);
  // A call that cannot be probed must not lose what became of it.
  if (admitted?.verb.class === 'once') await writer.flush();
  return outcome;
}

function admitCall(context: GuestContext, making: StepMaking, call: ScriptCall): StepCall {
  const { account } = making;
  const admitted = parseCall({ context, isDeclared: (rid) => making.isDeclared(rid) }, call);
  const { rid, uses, verb, name } = admitted;
  if (rid === null || uses === null) return admitted;
  account.reserve(rid, uses, `${verb.kind} ${name}`);
  return admitted;
}

function refusalOf(call: ScriptCall): StepIntent {
  return {
    type: 'step-intent',
    step: call.call,
    verb: call.verb.toWellFormed(),
    class: 'read',
    args: recordedArgs(call.args),
    rid: null,
    kind: null,
    name: call.name === null ? null : boundedText(call.name, ENGINE_LIMITS.nameCharsMax),
    action: REFUSED,
    before: null,
    desired: null,
  };
}

/** What a call returned, as the journal can keep it. Throws `E_SAL` when it cannot. */
export function checkResult(call: StepCall, result: Json | undefined): Json {
  const value = result ?? null;
  if (isTooDeep(value) || jsonBytes(value) > ENGINE_LIMITS.resultBytesMax) {
    throw new HyphaError(
      'E_SAL',
      `${call.verb.verb} returned more than ${ENGINE_LIMITS.resultBytesMax} bytes`,
      { hint: 'ask for less: a shorter listing or less output' },
    );
  }
  return wellFormed(value);
}

function toStepError(error: unknown, call: ScriptCall): StepError {
  const charsMax = ENGINE_LIMITS.messageCharsMax;
  if (error instanceof HyphaError) {
    const { code, message, hint } = error;
    return { code, message: boundedText(message, charsMax), hint: boundedText(hint, charsMax) };
  }
  const verb = boundedText(call.verb, LIMITS.nameCharsMax);
  return { code: 'E_INTERNAL', message: `step ${call.call}, ${verb}, failed for no known reason` };
}
