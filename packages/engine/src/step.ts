/**
 * One step (design §10): durable intent, probe if an earlier intent exists, apply, outcome.
 *
 * E1  No effect starts before its own intent is durable.
 * E2  An outcome may wait for the next append; if we die before it, the step is probed.
 * E3  A step that failed leaves nothing behind: what it changed is undone before the script learns of it,
 *     so that a script that copes with the error may go on and commit.
 */
import { HyphaError, type Json, LIMITS, type Rid, type StepError } from '@hypha/protocol';
import { ENGINE_LIMITS } from './engine-limits.ts';
import { boundedText, isTooDeep, jsonBytes, wellFormed } from './json-bounds.ts';
import type { Fault } from './ports.ts';
import { ResourceAccount } from './resource-account.ts';
import { callWithRetries, isRetryable } from './retry.ts';
import { REFUSED, RunRecord, type StepIntent, type StepOutcome } from './run-record.ts';
import { assertGoingOn, type SagaContext, stepContextOf } from './saga-context.ts';
import { isWayOut } from './saga-error.ts';
import { parseCall, recordedArgs, type StepCall } from './step-call.ts';
import type { ScriptCall, StepRunner } from './step-runner.ts';
import { undoStep } from './undo-step.ts';

/** How the outcome of an admitted call is made: by effects here, by predictions in a plan. */
export interface StepMaking {
  readonly account: ResourceAccount;
  /** True for what this run has declared or the committed record holds. */
  isDeclared(rid: Rid): boolean;
  /** Makes what the script gets. `intent`: to be recorded with it, when it is not on record yet. */
  execute(call: StepCall): Promise<{ readonly result: Json; readonly intent?: StepIntent }>;
}

/** Steps that have effects: one of these for every guest that is led through the record. */
export function openStepRunner(context: SagaContext): StepRunner {
  const { record, grant } = context;
  const account = new ResourceAccount(grant.payload.limits.resources);
  const making: StepMaking = {
    account,
    isDeclared: (rid) =>
      record.declared.has(rid) || grant.committed.some((resource) => resource.rid === rid),
    execute: async (call) => ({ result: await executeCall(context, call) }),
  };
  return {
    concurrencyMax: 1,
    run: (call) => runStep(context, making, call),
    replay: (call, outcome) => {
      if (outcome.type === 'step-result') accountFor(context, account, call);
    },
  };
}

/** A replayed declaration counts against the ceiling of those that follow it. */
function accountFor(context: SagaContext, account: ResourceAccount, call: ScriptCall): void {
  try {
    const { rid, uses } = parseCall({ context, isDeclared: () => true }, call);
    if (rid !== null && uses !== null) account.set(rid, uses);
  } catch (error) {
    // The node lost a SAL since: what it held is no longer there to be counted.
    if (!(error instanceof HyphaError)) throw error;
  }
}

/**
 * Runs a step to its outcome, which is recorded when this resolves and durable with the next append.
 * Throws `RunFailure` when the run was stopped meanwhile.
 */
export async function runStep(
  context: SagaContext,
  making: StepMaking,
  call: ScriptCall,
): Promise<StepOutcome> {
  const begunMs = context.clock.monotonicMs();
  const durationMs = () => Math.max(0, Math.round(context.clock.monotonicMs() - begunMs));
  const nowMs = () => Math.max(context.record.nowMs, context.clock.nowMs());
  const step = call.call;
  let admitted: StepCall | undefined;
  let intent: StepIntent | undefined;
  let outcome: StepOutcome;
  try {
    admitted = admitCall(context, making, call);
    const made = await making.execute(admitted);
    const { result } = made;
    ({ intent } = made);
    const { rid, uses } = admitted;
    if (rid !== null && uses !== null) making.account.set(rid, uses);
    outcome = { type: 'step-result', step, result, durationMs: durationMs(), nowMs: nowMs() };
  } catch (error) {
    if (isWayOut(error)) throw error;
    // What a call says when it was aborted is not an outcome: nobody is there to hear it.
    assertGoingOn(context);
    const stepError = toStepError(error, call);
    outcome = {
      type: 'step-error',
      step,
      error: stepError,
      durationMs: durationMs(),
      nowMs: nowMs(),
    };
  }
  // A call without effect has its intent only so that a replay is held to it: never without outcome.
  if (context.record.intents.has(call.call)) await context.writer.buffer(outcome);
  else await context.writer.buffer(intent ?? refusalOf(call), outcome);
  // A call that cannot be probed must not lose what became of it.
  if (admitted?.verb.class === 'once') await context.writer.flush();
  return outcome;
}

function admitCall(context: SagaContext, making: StepMaking, call: ScriptCall): StepCall {
  const admitted = parseCall({ context, isDeclared: (rid) => making.isDeclared(rid) }, call);
  const { rid, uses, verb, name } = admitted;
  if (rid !== null && uses !== null) making.account.assertFits(rid, uses, `${verb.kind} ${name}`);
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

async function executeCall(context: SagaContext, call: StepCall): Promise<Json> {
  const earlier = context.record.intents.get(call.step);
  if (earlier !== undefined) return await resumeCall(context, call, earlier);
  const plan = await attempt(context, call, 'plan', () =>
    call.verb.plan(stepContextOf(context, call, context.stop), call.args),
  );
  const intent: StepIntent = {
    type: 'step-intent',
    step: call.step,
    verb: call.verb.verb,
    class: call.verb.class,
    args: call.rawArgs,
    rid: plan.rid ?? call.rid,
    kind: call.verb.kind,
    name: call.name,
    action: plan.action,
    before: plan.before,
    desired: call.desired,
  };
  assertIntentFits(intent);
  assertGoingOn(context);
  // A read has no effect to be recorded before it.
  if (call.verb.class === 'read') await context.writer.buffer(intent);
  else await context.writer.append(intent);
  return await applyCall(context, call, intent.before);
}

/** An intent without outcome, from before a crash: the effect may be whole, partial or missing. */
async function resumeCall(context: SagaContext, call: StepCall, intent: StepIntent): Promise<Json> {
  const { verb } = call;
  // An epoch touches nothing before the journal has taken its `started`: a stale one learns it here.
  await context.writer.flush();
  if (verb.class === 'once' && !isDeclaredIdempotent(call.rawArgs)) {
    throw new HyphaError(
      'E_UNKNOWN_OUTCOME',
      `${verb.verb} was started before a crash and may or may not have happened`,
    );
  }
  if (verb.class !== 'once' && verb.probe !== undefined) {
    const probe = verb.probe.bind(verb);
    const found = await attempt(context, call, 'probe', () =>
      probe(stepContextOf(context, call, context.stop), call.args, intent.before),
    );
    if (found.state === 'done') return checkResult(call, found.result);
  }
  return await applyCall(context, call, intent.before);
}

async function applyCall(context: SagaContext, call: StepCall, before: Json): Promise<Json> {
  try {
    const result = await attempt(context, call, 'apply', () =>
      call.verb.apply(stepContextOf(context, call, context.stop), call.args, before),
    );
    return checkResult(call, result);
  } catch (error) {
    const intent = context.record.intents.get(call.step);
    // After a stop the whole run is undone, this step first.
    const isUndoneNow =
      !isWayOut(error) && !context.stop.aborted && context.grant.payload.onFailure === 'undo';
    if (isUndoneNow && intent !== undefined && RunRecord.isUndoable(intent)) {
      await undoStep(context, intent);
    }
    throw error;
  }
}

/** One part of a step, tried again while its error says that it may succeed. */
export async function attempt<T>(
  context: SagaContext,
  call: StepCall,
  phase: Fault['phase'],
  start: () => Promise<T>,
): Promise<T> {
  const { verb, class: verbClass } = call.verb;
  // The first try may have happened: only the signer can say that a second does no harm.
  const isRepeatable =
    phase !== 'apply' || verbClass !== 'once' || isDeclaredIdempotent(call.rawArgs);
  return await callWithRetries(
    {
      clock: context.clock,
      signal: context.stop,
      attemptsMax: ENGINE_LIMITS.tryAttemptsMax,
      totalMsMax: ENGINE_LIMITS.tryMsMax,
      isRetryable: (error) => isRepeatable && isRetryable(error),
      onFault: (tries, error) =>
        context.onFault({ phase, step: call.step, verb, attempt: tries, error }),
    },
    start,
  );
}

function isDeclaredIdempotent(args: Json): boolean {
  if (typeof args !== 'object' || args === null || Array.isArray(args)) return false;
  return (args as { readonly idempotent?: Json }).idempotent === true;
}

function assertIntentFits(intent: StepIntent): void {
  const bytes = jsonBytes(intent);
  // Room for what the journal adds to an event.
  const bytesMax = LIMITS.journalEventBytesMax - 4096;
  if (bytes <= bytesMax) return;
  throw new HyphaError(
    'E_ARGUMENT',
    `${intent.verb} needs ${bytes} bytes of journal, at most ${bytesMax} are allowed`,
  );
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
