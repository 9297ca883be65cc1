import {
  EMPTY_RUN_FOLD,
  GENESIS_HASH,
  Problem,
  type RunFold,
  type RunState,
  type RunView,
  type ScriptPayload,
} from '@hypha/protocol';
import type { Selectable } from 'kysely';
import { type OpenSteps, wakeTimeOf } from './open-steps.ts';
import type { CoordinatorDb } from './schema.ts';

export type RunRow = Selectable<CoordinatorDb['runs']>;
export type RevisionRow = CoordinatorDb['revisions'];

/**
 * What a run is, from what its node's journal says and, until that says anything, from what the
 * coordinator assumes. The node's truth always wins.
 */
export function stateOf(row: Pick<RunRow, 'last_seq' | 'guess' | 'fold'>): RunState {
  return isGuessed(row) ? 'rejected' : foldOf(row).state;
}

/** Whether nothing but an assumption says how it ended. */
export function isGuessed(row: Pick<RunRow, 'last_seq' | 'guess'>): boolean {
  return row.last_seq === 0 && row.guess !== null;
}

export function viewOf(row: RunRow): RunView {
  const fold = foldOf(row);
  const guessed = isGuessed(row);
  const state = stateOf(row);
  const waitingUntil = state === 'running' ? wakeTimeOf(openStepsOf(row)) : undefined;
  // The rows hold what was checked against these schemas before it was written.
  return {
    run: row.run,
    revision: row.revision,
    envelopeDigest: row.digest,
    node: row.node,
    realm: row.realm,
    deployment: row.deployment,
    generation: row.generation,
    mode: row.mode as RunView['mode'],
    state,
    steps: fold.steps,
    acceptedAt: fold.acceptedAt ?? row.submitted_at,
    startedAt: fold.startedAt,
    endedAt: guessed ? row.guessed_at : fold.endedAt,
    problem: guessed ? guessOf(row) : fold.problem,
    simulated: fold.simulated,
    message: row.message,
    ...(waitingUntil === undefined ? {} : { waitingUntil }),
    ...(row.cancel_requested_at === null ? {} : { cancelRequestedAt: row.cancel_requested_at }),
  };
}

export function foldOf(row: Pick<RunRow, 'fold'>): RunFold {
  return JSON.parse(row.fold) as RunFold;
}

export function openStepsOf({ open_steps }: Pick<RunRow, 'open_steps'>): OpenSteps {
  return open_steps === null ? null : (JSON.parse(open_steps) as OpenSteps);
}

export function guessOf(row: Pick<RunRow, 'guess'>): Problem | null {
  return row.guess === null ? null : Problem.parse(JSON.parse(row.guess));
}

/** A run as it stands at its 202: accepted here, unknown to its node. */
export function newRun(fields: {
  readonly run: string;
  readonly node: string;
  readonly digest: string;
  readonly payload: ScriptPayload;
  readonly nowMs: number;
}): RunRow {
  const { run, node, digest, payload, nowMs } = fields;
  return {
    run,
    digest,
    revision: payload.id,
    node,
    realm: payload.realm,
    deployment: payload.deployment,
    generation: payload.generation,
    mode: payload.mode,
    message: payload.message,
    submitted_at: nowMs,
    state: EMPTY_RUN_FOLD.state,
    fold: JSON.stringify(EMPTY_RUN_FOLD),
    last_seq: 0,
    head: GENESIS_HASH,
    guess: null,
    guessed_at: null,
    cancel_requested_at: null,
    open_steps: '{}',
    keeps: 0,
  };
}

/** `spent_tokens` rows of a revision: what makes a second envelope with the same id or nonce a replay. */
export function spentTokensOf(
  payload: Pick<ScriptPayload, 'id' | 'nonce'>,
  keyids: readonly string[],
): readonly string[] {
  return [`id ${payload.id}`, ...keyids.map((keyid) => `nonce ${keyid} ${payload.nonce}`)];
}
