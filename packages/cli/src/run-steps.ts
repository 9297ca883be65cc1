import type { JournalBody, Json, StepError } from '@hypha/protocol';

/** One step of a run as its journal tells it. */
export interface StepRow {
  readonly step: number;
  readonly verb: string;
  readonly kind: string | null;
  readonly name: string | null;
  readonly action: string;
  readonly differs: readonly string[];
  /** `open`: nobody knows what became of it. */
  readonly state: 'done' | 'failed' | 'undone' | 'left' | 'open';
  readonly result?: Json;
  readonly error?: StepError;
  readonly durationMs?: number;
}

/** In the order of the steps. */
export function stepRows(bodies: readonly JournalBody[]): readonly StepRow[] {
  const rows = new Map<number, StepRow>();
  for (const body of bodies) {
    if (body.type === 'step-intent') {
      const { step, verb, kind, name, action, differs = [] } = body;
      rows.set(step, { step, verb, kind, name, action, differs, state: 'open' });
    }
    const row = 'step' in body ? rows.get(body.step) : undefined;
    if (row === undefined) continue;
    if (body.type === 'step-result') {
      const { result, durationMs } = body;
      rows.set(row.step, { ...row, state: 'done', result, durationMs });
    } else if (body.type === 'step-error') {
      const { error, durationMs } = body;
      rows.set(row.step, { ...row, state: 'failed', error, durationMs });
    } else if (body.type === 'undo-result') {
      rows.set(row.step, { ...row, state: body.leftover === null ? 'undone' : 'left' });
    }
  }
  return [...rows.values()].sort((a, b) => a.step - b.step);
}
