import { type HyphaError, KEPT_REASON, type Leftover, Problem } from '@hypha/protocol';
import { ENGINE_LIMITS } from './engine-limits.ts';
import { recordedProblem } from './recorded-problem.ts';
import { RunRecord, type StepIntent } from './run-record.ts';
import type { SagaContext } from './saga-context.ts';
import { undoStep } from './undo-step.ts';

export type Unwound =
  | { readonly state: 'failed' | 'cancelled' | 'rejected'; readonly problem: Problem }
  /** Drained in the middle: another runner goes on. */
  | { readonly state: 'released' };

/**
 * Ends a run that does not commit: undoes its steps, those that were under way first and then the
 * newest outcome first, then records `finished` (design §10, G5).
 * Resumes an undo that was begun: what has a result is not undone again, and the problem stays the first.
 * If we die in it, the run is taken over and undone by the next runner.
 */
export async function unwindRun(context: SagaContext, failure: HyphaError): Promise<Unwound> {
  const { record, writer } = context;
  await writer.turnBack();
  const problem = record.undoProblem ?? recordedProblem(failure);
  const isKept = context.grant.payload.onFailure === 'keep' && !record.isUndoing;
  const steps = isKept ? [] : stepsToUndo(record);
  for (const intent of steps) {
    if (context.drain.aborted) {
      await writer.flush();
      return { state: 'released' };
    }
    const isFirst = !record.isUndoing;
    const { step } = intent;
    await writer.append({ type: 'undo-intent', step, ...(isFirst ? { problem } : {}) });
    const leftover = await undoStep(context, intent);
    await writer.buffer({ type: 'undo-result', step, leftover });
  }
  const state = endState(record, Problem.parse(problem).code);
  const undone = [...record.undoResults.values()].filter((leftover) => leftover === null).length;
  const leftovers = isKept ? keptResources(record) : leftoversOf(record);
  await writer.append({
    type: 'finished',
    state,
    problem,
    undone,
    leftovers: boundedLeftovers(leftovers),
  });
  return { state, problem: Problem.parse(problem) };
}

/**
 * Under `onFailure: "keep"` a failed step stays as it is while the run may fail. A script that coped with
 * the error and returned has no use for it: what no later step declared is undone before the commit.
 */
export async function undoFailedSteps(context: SagaContext): Promise<void> {
  const { record } = context;
  for (const intent of stepsToUndo(record)) {
    const isFailed = record.outcomes.get(intent.step)?.type === 'step-error';
    if (isFailed && !record.declared.has(intent.rid ?? '')) await undoStep(context, intent);
  }
}

/** What is left to undo, in the order to undo it. */
export function stepsToUndo(record: RunRecord): StepIntent[] {
  const ended = record.completions.map(({ step }) => step);
  return [...ended, ...record.openSteps]
    .reverse()
    .map((step) => record.intents.get(step))
    .filter((intent) => intent !== undefined)
    .filter((intent) => RunRecord.isUndoable(intent) && !record.undoResults.has(intent.step));
}

function endState(record: RunRecord, code: string): 'failed' | 'cancelled' | 'rejected' {
  if (code === 'E_CANCELLED') return 'cancelled';
  return record.started === undefined ? 'rejected' : 'failed';
}

function leftoversOf(record: RunRecord): Leftover[] {
  const created = new Set<string>();
  const leftovers: Leftover[] = [];
  for (const [step, intent] of record.intents) {
    if (intent.action === 'create' && intent.rid !== null) created.add(intent.rid);
    const reason = record.undoResults.get(step);
    if (typeof reason === 'string') leftovers.push(...leftoverOf(intent, reason));
    // What was run inside a thing that is gone again is gone with it.
    const isLasting = intent.class === 'once' && !created.has(intent.rid ?? '');
    if (isLasting) leftovers.push(...leftoverOf(intent, `${intent.verb} is not undone`));
  }
  return leftovers;
}

/** `onFailure: "keep"`: everything the run changed stays, and is named. */
function keptResources(record: RunRecord): Leftover[] {
  const kept = new Map<string, Leftover>();
  for (const intent of record.intents.values()) {
    if (!RunRecord.isUndoable(intent)) continue;
    for (const leftover of leftoverOf(intent, KEPT_REASON)) {
      kept.set(leftover.rid, leftover);
    }
  }
  return [...kept.values()];
}

function leftoverOf(intent: StepIntent, reason: string): Leftover[] {
  const { rid, kind, name } = intent;
  return rid === null || kind === null || name === null ? [] : [{ rid, kind, name, reason }];
}

/** The event that ends a run must always fit the journal. */
function boundedLeftovers(leftovers: readonly Leftover[]): Leftover[] {
  const shown = leftovers.slice(0, ENGINE_LIMITS.leftoversMax);
  const last = shown.at(-1);
  const more = leftovers.length - shown.length;
  if (more === 0 || last === undefined) return shown;
  const reason = `${last.reason}; and ${more} more, see the journal`;
  return [...shown.slice(0, -1), { ...last, reason }];
}
