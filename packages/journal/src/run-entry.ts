import type { Problem, RunState, ScriptMode } from '@hypha/protocol';
import type { Selectable } from 'kysely';
import type { JournalTables } from './journal-schema.ts';

/** Which way a submission came. */
export type RunSource = 'http' | 'inbox';

/** One run as the journal knows it, without its envelope and events. Times in epoch milliseconds. */
export interface RunEntry {
  readonly run: string;
  /** Order of acceptance on this node. */
  readonly position: number;
  readonly digest: string;
  readonly revision: string;
  readonly realm: string;
  readonly deployment: string;
  readonly generation: number;
  readonly mode: ScriptMode;
  readonly source: RunSource;
  readonly state: RunState;
  /** Newest epoch: the one a queue job has to name. */
  readonly epoch: number;
  /** Runner that owns the epoch; null while nobody does. */
  readonly holder: string | null;
  /** Boot id under which a runner last had it. */
  readonly bootId: string | null;
  /** Journal events so far, and the hash of the last. */
  readonly seq: number;
  readonly head: string;
  readonly steps: number;
  readonly acceptedAt: number;
  readonly startedAt: number | null;
  readonly endedAt: number | null;
  readonly problem: Problem | null;
  readonly simulated: boolean;
  readonly keep: boolean;
  readonly deleteData: readonly string[];
  readonly message: string;
  /** Who signed it. */
  readonly keyids: readonly string[];
  /** When its cancel was accepted; null while there is none. */
  readonly cancelRequestedAt: number | null;
  /** It only waits, owned by nobody, and is to be queued then; null otherwise. */
  readonly wakeAt: number | null;
}

/** Columns of `RunEntry`: all but the envelope, which is large. */
export const RUN_COLUMNS = [
  'run',
  'position',
  'digest',
  'revision',
  'realm',
  'deployment',
  'generation',
  'mode',
  'source',
  'state',
  'epoch',
  'holder',
  'bootId',
  'seq',
  'head',
  'steps',
  'acceptedAt',
  'startedAt',
  'endedAt',
  'problem',
  'simulated',
  'onFailure',
  'deleteData',
  'message',
  'keyids',
  'cancelRequestedAt',
  'wakeAt',
] as const;

type RunRow = Pick<Selectable<JournalTables['run']>, (typeof RUN_COLUMNS)[number]>;

export function runEntryOf(row: RunRow): RunEntry {
  return {
    run: row.run,
    position: row.position,
    digest: row.digest,
    revision: row.revision,
    realm: row.realm,
    deployment: row.deployment,
    generation: row.generation,
    // Written by this package from parsed values.
    mode: row.mode as ScriptMode,
    source: row.source as RunSource,
    state: row.state as RunState,
    epoch: row.epoch,
    holder: row.holder,
    bootId: row.bootId,
    seq: row.seq,
    head: row.head,
    steps: row.steps,
    acceptedAt: row.acceptedAt,
    startedAt: row.startedAt,
    endedAt: row.endedAt,
    problem: row.problem === null ? null : (JSON.parse(row.problem) as Problem),
    simulated: row.simulated === 1,
    keep: row.onFailure === 'keep',
    deleteData: JSON.parse(row.deleteData) as string[],
    message: row.message,
    keyids: JSON.parse(row.keyids) as string[],
    cancelRequestedAt: row.cancelRequestedAt,
    wakeAt: row.wakeAt,
  };
}
