/** What a run's row says about what may be done with the run. */
import {
  type BodyOf,
  HyphaError,
  isTerminal,
  type JournalBody,
  Json,
  toProblem,
} from '@hypha/protocol';
import type { RunEntry } from './run-entry.ts';

/** Who appends. The supervisor's own events carry epoch 0. */
export type Author = { readonly by: 'supervisor' } | RunnerAuthor;

export interface RunnerAuthor {
  readonly by: 'runner';
  readonly runner: string;
  readonly epoch: number;
  /** Events the runner knows of: tells an append that was sent twice. */
  readonly after: number;
}

/** States in which a runner has work to do. */
export function isClaimable(entry: Pick<RunEntry, 'state'>): boolean {
  return entry.state === 'accepted' || entry.state === 'running' || entry.state === 'undoing';
}

/** No runner has ever begun it, or may begin it now. */
export function isUnbegun({ state, holder }: RunEntry): boolean {
  return state === 'accepted' && holder === null;
}

/** Its cancel was accepted, or it ended as if: another changes nothing. */
export function isCancelled({ state, cancelRequestedAt }: RunEntry): boolean {
  return state === 'cancelled' || cancelRequestedAt !== null;
}

/** Throws `E_TOO_LATE` for a run that goes no way but forward, or is over. */
export function demandCancellable(entry: RunEntry): void {
  if (isClaimable(entry)) return;
  throw new HyphaError('E_TOO_LATE', `cannot cancel ${entry.run}: it is ${entry.state}`, {
    details: { run: entry.run, state: entry.state },
  });
}

/** Throws `E_STALE_EPOCH`. */
export function demandOwner(entry: RunEntry, author: Author): void {
  if (author.by === 'supervisor') return;
  if (entry.epoch === author.epoch && entry.holder === author.runner) return;
  throw new HyphaError(
    'E_STALE_EPOCH',
    `${author.runner} does not own ${entry.run} in epoch ${author.epoch}`,
    { details: { epoch: entry.epoch } },
  );
}

/** Throws `E_CANCELLED` for what a cancelled run may not begin any more (G6). */
export function demandGoingOn(
  { run, cancelRequestedAt }: RunEntry,
  bodies: readonly JournalBody[],
): void {
  if (cancelRequestedAt === null) return;
  const refused = bodies.find(({ type }) => type === 'step-intent' || type === 'committed');
  if (refused === undefined) return;
  throw new HyphaError('E_CANCELLED', `${refused.type} may not follow in ${run}: it is cancelled`, {
    where: { path: 'body.type' },
  });
}

/** What the coordinator is to be told of a run: every event, and the receipt as one more. */
export function dueOf({ state, seq }: Pick<RunEntry, 'state' | 'seq'>): number {
  return isTerminal(state) ? seq + 1 : seq;
}

/** The end of a run that was cancelled before it began. */
export function cancelledBody(run: string): BodyOf<'finished'> {
  const error = new HyphaError('E_CANCELLED', `${run} was cancelled before it began`);
  const problem = Json.parse(toProblem(error));
  return { type: 'finished', state: 'cancelled', problem, undone: 0, leftovers: [] };
}
