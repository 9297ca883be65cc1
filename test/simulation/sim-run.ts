import type { BodyOf, JournalBody, JournalEvent, ScriptPayload } from '@hypha/protocol';
import { callsOf, type ScriptOps } from './sim-script.ts';

/** Signed work, as its sender knows it. */
export interface SimWork {
  readonly deployment: string;
  /** Among the runs of its deployment, from 1: the order they take turns in. */
  readonly place: number;
  readonly generation: number;
  readonly mode: ScriptPayload['mode'];
  readonly ops: ScriptOps;
  /** Its failure is signed to be kept. */
  readonly isKept: boolean;
  /** The plan of the same script that came before it. */
  readonly plan: SimRun | null;
  /** Hash of that plan, when it is held to it. */
  readonly expects: string | null;
}

export interface SimRun extends SimWork {
  readonly run: string;
  readonly digest: string;
  cancelledAtMs: number | null;
}

/** How a run ended. */
export type SimEnd = BodyOf<'finished'>;

export function labelOf({ deployment, place, mode }: SimWork): string {
  return `${deployment}-${place}-${mode}`;
}

/** The events of one type, in order. */
export function bodiesOf<Type extends JournalBody['type']>(
  events: readonly JournalEvent[],
  type: Type,
): BodyOf<Type>[] {
  return events.flatMap(({ body }) => (body.type === type ? [body as BodyOf<Type>] : []));
}

export function codeOf({ problem }: SimEnd): string {
  return (problem as { readonly code?: string } | null)?.code ?? '';
}

/** What a run of these ops may end with while everything around it fails. */
export function legalCodes({ ops, mode, expects, cancelledAtMs }: SimRun): readonly string[] {
  const all = ops.flatMap(callsOf);
  const codes = ['E_SANDBOX'];
  // Plans and tasks are of no generation.
  if (mode === 'apply' || mode === 'destroy') codes.push('E_SUPERSEDED');
  if (cancelledAtMs !== null) codes.push('E_CANCELLED');
  if (all.some(({ op }) => op === 'throw')) codes.push('E_SCRIPT');
  if (all.some((op) => op.op === 'run' && !op.idempotent)) codes.push('E_UNKNOWN_OUTCOME');
  if (all.some((op) => op.op === 'ensure' && op.fails === 'always')) codes.push('E_HEALTH');
  if (all.some((op) => op.op === 'run' && op.mayBeDown === true)) codes.push('E_HEALTH');
  // Of a thing whose declaration failed.
  if (all.some((op) => op.op === 'ensure' && (op.size === 0 || op.fails === 'always')))
    codes.push('E_REFERENCE');
  // A task declares nothing, and works on what happens to be there.
  if (mode === 'task') codes.push('E_REFERENCE', 'E_ARGUMENT');
  if (all.some(({ op }) => op === 'undo')) codes.push('E_NOT_FOUND', 'E_TOO_LATE');
  if (expects !== null) codes.push('E_PLAN_CHANGED', 'E_PLAN_PARTIAL');
  return codes;
}
