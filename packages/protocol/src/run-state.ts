import { z } from 'zod';

/** Design §10. Terminal states absorb. */
export const RunState = z.enum([
  'accepted',
  'queued',
  'running',
  'undoing',
  'committed',
  'succeeded',
  'failed',
  'cancelled',
  'rejected',
]);
export type RunState = z.infer<typeof RunState>;

const NEXT: Readonly<Record<RunState, readonly RunState[]>> = {
  accepted: ['queued', 'running', 'cancelled', 'rejected'],
  queued: ['running', 'cancelled', 'rejected'],
  running: ['committed', 'undoing', 'failed', 'cancelled'],
  undoing: ['failed', 'cancelled'],
  committed: ['succeeded'],
  succeeded: [],
  failed: [],
  cancelled: [],
  rejected: [],
};

export function mayFollow(from: RunState, to: RunState): boolean {
  return NEXT[from].includes(to);
}

export function isTerminal(state: RunState): boolean {
  return NEXT[state].length === 0;
}

/** A revision's state is derived from its runs (design §10). */
export type RevisionState = 'pending' | 'succeeded' | 'failed' | 'partial';

export function revisionState(runs: readonly RunState[]): RevisionState {
  if (runs.some((state) => !isTerminal(state))) return 'pending';
  const succeeded = runs.filter((state) => state === 'succeeded').length;
  if (succeeded === runs.length) return 'succeeded';
  return succeeded === 0 ? 'failed' : 'partial';
}
