import { HyphaError, Problem, toProblem } from './hypha-error.ts';
import type { JournalEvent } from './journal-event.ts';
import type { Json } from './json-value.ts';
import { isTerminal, type RunState } from './run-state.ts';

/** What a run's journal says about the run: the parts of a `RunView` that come from the node. */
export interface RunFold {
  readonly state: RunState;
  /** Steps with a recorded outcome. */
  readonly steps: number;
  /** Epoch milliseconds of the node's clock; null until the event is there. */
  readonly acceptedAt: number | null;
  readonly startedAt: number | null;
  readonly endedAt: number | null;
  /** Why it did not succeed. */
  readonly problem: Problem | null;
  /** True when any step ran on a simulated SAL. */
  readonly simulated: boolean;
}

/** A run with no event yet. */
export const EMPTY_RUN_FOLD: RunFold = {
  state: 'accepted',
  steps: 0,
  acceptedAt: null,
  startedAt: null,
  endedAt: null,
  problem: null,
  simulated: false,
};

/**
 * The fold after one more event. Pure, so that coordinator, supervisor and CLI show the same run for the
 * same journal. Terminal states absorb (design §10): events after `finished` change nothing.
 */
export function foldRunEvent(fold: RunFold, event: JournalEvent): RunFold {
  if (isTerminal(fold.state)) return fold;
  const { body, at } = event;
  switch (body.type) {
    case 'accepted':
      return { ...fold, acceptedAt: at };
    case 'started':
      // A run taken over starts again under a new epoch: its first start is the one that counts.
      if (fold.startedAt !== null) return fold;
      return { ...fold, state: 'running', startedAt: at };
    case 'step-intent':
    case 'log':
      return fold;
    case 'step-result':
      return {
        ...fold,
        steps: fold.steps + 1,
        simulated: fold.simulated || isSimulated(body.result),
      };
    case 'step-error':
      return { ...fold, steps: fold.steps + 1 };
    case 'committed':
      return { ...fold, state: 'committed' };
    case 'undo-intent':
      return {
        ...fold,
        state: 'undoing',
        problem: body.problem === undefined ? fold.problem : problemOf(body.problem, event),
      };
    case 'undo-result':
      return { ...fold, state: 'undoing' };
    case 'finished':
      return {
        ...fold,
        state: body.state,
        endedAt: at,
        problem: body.problem === null ? null : problemOf(body.problem, event),
      };
    default:
      return body satisfies never;
  }
}

/** Folds a journal from its first event. */
export function foldRun(events: readonly JournalEvent[]): RunFold {
  return events.reduce(foldRunEvent, EMPTY_RUN_FOLD);
}

/** Simulated SALs say so in every handle they return. */
function isSimulated(result: Json): boolean {
  if (typeof result !== 'object' || result === null || Array.isArray(result)) return false;
  const { simulated } = result as { readonly simulated?: Json };
  return simulated === true;
}

function problemOf(recorded: Json, event: JournalEvent): Problem {
  const parsed = Problem.safeParse(recorded);
  if (parsed.success) return parsed.data;
  return toProblem(
    new HyphaError('E_INTERNAL', `run ${event.run} ended with a problem that cannot be read`, {
      details: recorded,
    }),
  );
}
