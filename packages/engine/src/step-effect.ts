/**
 * Steps that have effects (design §10): durable intent, probe if an earlier intent exists, apply, outcome.
 *
 * E1  No effect starts before its own intent is durable.
 * E2  An outcome may wait for the next append; if we die before it, the step is probed.
 * E3  A step that failed leaves nothing behind: what it changed is undone before the script learns of it,
 *     so that a script that copes with the error may go on and commit.
 */
import { HyphaError, type Json, LIMITS } from '@hypha/protocol';
import { ENGINE_LIMITS } from './engine-limits.ts';
import { isWaitVerb } from './engine-verbs.ts';
import { jsonBytes } from './json-bounds.ts';
import { ResourceAccount } from './resource-account.ts';
import { RunRecord, type StepIntent } from './run-record.ts';
import { assertGoingOn, type GuestContext } from './saga-context.ts';
import { isWayOut } from './saga-error.ts';
import { checkResult, runStep, type StepMaking } from './step.ts';
import { parseCall, type StepCall } from './step-call.ts';
import { locksOf } from './step-locks.ts';
import { attempt, isDeclaredIdempotent } from './step-part.ts';
import type { ScriptCall, StepRunner } from './step-runner.ts';
import { undoStep } from './undo-step.ts';

/** One of these for every guest that is led through the record. */
export function openStepRunner(context: GuestContext): StepRunner {
  const { record, grant } = context;
  const account = new ResourceAccount(grant.payload.limits.resources);
  const committed = new Set(grant.committed.map(({ rid }) => rid));
  const making: StepMaking = {
    account,
    isDeclared: (rid) => record.declared.has(rid) || committed.has(rid),
    execute: async (call) => ({ result: await executeCall(context, call) }),
  };
  return {
    concurrencyMax: ENGINE_LIMITS.stepsAtOnceMax,
    locksOf: (call) => locksOf(context, call),
    isWait: ({ verb }) => isWaitVerb(verb),
    run: (call) => runStep(context, making, call),
    replay: (call, outcome) => {
      if (outcome.type === 'step-result') accountFor(context, account, call);
    },
  };
}

/** A replayed declaration counts against the ceiling of those that follow it. */
function accountFor(context: GuestContext, account: ResourceAccount, call: ScriptCall): void {
  try {
    const { rid, uses } = parseCall({ context, isDeclared: () => true }, call);
    if (rid !== null && uses !== null) account.set(rid, uses);
  } catch (error) {
    // The node lost a SAL since: what it held is no longer there to be counted.
    if (!(error instanceof HyphaError)) throw error;
  }
}

async function executeCall(context: GuestContext, call: StepCall): Promise<Json> {
  const earlier = context.record.intents.get(call.step);
  if (earlier !== undefined) return await resumeCall(context, call, earlier);
  const preparedMs = await prepareCall(context, call);
  const plan = await attempt(context, call, 'plan', (step) => call.verb.plan(step, call.args));
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
    ...(plan.differs === undefined ? {} : { differs: [...plan.differs] }),
    ...(preparedMs === 0 ? {} : { preparedMs }),
  };
  assertIntentFits(intent);
  assertGoingOn(context);
  // A read has no effect to be recorded before it.
  if (call.verb.class === 'read') await context.writer.buffer(intent);
  else await context.writer.append(intent);
  return await applyCall(context, call, intent.before);
}

/** An intent without outcome, from before a crash: the effect may be whole, partial or missing. */
async function resumeCall(
  context: GuestContext,
  call: StepCall,
  intent: StepIntent,
): Promise<Json> {
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
    const found = await attempt(context, call, 'probe', (step) =>
      probe(step, call.args, intent.before),
    );
    if (found.state === 'done') return checkResult(call, found.result);
  }
  await prepareCall(context, call);
  return await applyCall(context, call, intent.before);
}

async function applyCall(context: GuestContext, call: StepCall, before: Json): Promise<Json> {
  try {
    const result = await attempt(context, call, 'apply', (step) =>
      call.verb.apply(step, call.args, before),
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

/**
 * Fetches what the step needs, off the run's clock. What it got stays, so that this is quick when a step is resumed.
 * @returns how long it took, milliseconds
 */
async function prepareCall(context: GuestContext, call: StepCall): Promise<number> {
  const prepare = call.verb.prepare?.bind(call.verb);
  if (prepare === undefined) return 0;
  return await context.deadline.prepare(() =>
    attempt(context, call, 'prepare', (step) => prepare(step, call.args)),
  );
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
