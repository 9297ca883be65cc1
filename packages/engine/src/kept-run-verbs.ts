/**
 * Verbs with which a task undoes what a failed run left behind (`hypha run undo`). The intent and the before-image
 * of each effect are in the journal of that run; the task's own journal says that it is undone.
 */
import { HyphaError, type Json, RunId } from '@hypha/protocol';
import { parseArguments } from '@hypha/sal';
import { z } from 'zod';
import { ENGINE_LIMITS } from './engine-limits.ts';
import type { EngineVerb } from './engine-verbs.ts';
import { getKeptStep, type KeptRun } from './kept-runs.ts';
import type { StepIntent } from './run-record.ts';
import type { SagaContext } from './saga-context.ts';
import { undoStep } from './undo-step.ts';

const KeptArgs = z.strictObject({ run: RunId });
const UndoArgs = z.strictObject({ run: RunId, step: z.int().min(1) });

/**
 * What is left to undo, newest first: `[{step, verb, kind, name}]`, without what this task has tried. A full list may
 * not be all: ask again after those. Refused before anything is undone.
 */
export const runKept: EngineVerb<z.infer<typeof KeptArgs>> = {
  verb: 'run.kept',
  class: 'read',
  parse: (args) => parseArguments('run.kept', KeptArgs, args),
  apply: async (context, _step, { run }) => {
    const { steps } = await readKept(context, run);
    for (const intent of steps) assertMayUndo(context, intent);
    const tried = listTried(context, run);
    return steps
      .filter(({ step }) => !tried.has(step))
      .slice(0, ENGINE_LIMITS.keptStepsMax)
      .map(({ step, verb, kind, name }): Json => ({ step, verb, kind, name }));
  },
};

/**
 * Undoes one step of a kept run: `{leftover}`, null or why something is left. Idempotent, so that one that was cut
 * is made again.
 */
export const runUndo: EngineVerb<z.infer<typeof UndoArgs>> = {
  verb: 'run.undo',
  class: 'read',
  parse: (args) => parseArguments('run.undo', UndoArgs, args),
  plan: async (context, _step, { run, step }) => {
    const { rid } = getKeptStep(await readKept(context, run), step);
    return { action: 'run', before: null, ...(rid === null ? {} : { rid }) };
  },
  apply: async (context, { signal }, { run, step }) => {
    const kept = await readKept(context, run);
    const intent = getKeptStep(kept, step);
    assertMayUndo(context, intent);
    // From here on the journal knows of it, and the reconciler leaves the resource alone.
    await context.writer.flush();
    const leftover = await undoStep(asRun(context, kept), intent, signal);
    signal.throwIfAborted();
    return { leftover };
  },
};

/** Steps of the kept run that this task has an answer for. */
function listTried({ record }: SagaContext, run: string): ReadonlySet<number> {
  const tried = new Set<number>();
  for (const { step, verb, args } of record.intents.values()) {
    if (verb !== runUndo.verb || !record.outcomes.has(step)) continue;
    const asked = UndoArgs.safeParse(args).data;
    if (asked?.run === run) tried.add(asked.step);
  }
  return tried;
}

async function readKept(context: SagaContext, run: string): Promise<KeptRun> {
  const { payload } = context.grant;
  if (payload.mode !== 'task') {
    throw new HyphaError('E_ARGUMENT', `only a task undoes ${run}, and this is a ${payload.mode}`, {
      hint: `hypha run undo ${run}`,
    });
  }
  return await context.kept.read(run);
}

/** Undoing needs what doing needed. */
function assertMayUndo({ sals, grant }: SagaContext, { verb, step }: StepIntent): void {
  const capability = sals.findVerb(verb)?.capability;
  if (capability === undefined || grant.payload.caps.includes(capability)) return;
  throw new HyphaError(
    'E_CAPABILITY',
    `undo of step ${step}, ${verb}, needs the capability ${capability}, which was not signed for`,
    { hint: `sign again with ${capability} in caps` },
  );
}

/** A SAL undoes only what carries the mark of the run and step that made it. */
function asRun(context: SagaContext, { run, secrets }: KeptRun): SagaContext {
  return { ...context, grant: { ...context.grant, run, secrets } };
}
