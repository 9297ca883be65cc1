import type { Problem, RunFold } from '@hypha/protocol';
import type { Store, Write } from '@hypha/store';
import type { ChangeFeed } from './change-feed.ts';
import type { Doorbell } from './doorbell.ts';
import type { OpenSteps } from './open-steps.ts';
import { type RunRow, stateOf, viewOf } from './run-record.ts';
import type { CoordinatorDb } from './schema.ts';

/** What a run's row may become. */
export interface RunChange {
  /** After events of its node's journal. */
  readonly journal?: {
    readonly fold: RunFold;
    readonly lastSeq: number;
    readonly head: string;
    readonly openSteps: OpenSteps;
    /** It ended and left what it made, signed so. */
    readonly keeps: boolean;
  };
  /** What is assumed until the node says anything: `null` takes an assumption back. */
  readonly guess?: { readonly problem: Problem; readonly atMs: number } | null;
}

/** Rung at every durable change of a run and at every new event of it. */
export function runTopic(run: string): string {
  return `run ${run}`;
}

/** The rows of runs. */
export class RunBook {
  readonly #store: Store<CoordinatorDb>;
  readonly #changes: ChangeFeed;
  readonly #bell: Doorbell;

  constructor(deps: {
    readonly store: Store<CoordinatorDb>;
    readonly changes: ChangeFeed;
    readonly bell: Doorbell;
  }) {
    this.#store = deps.store;
    this.#changes = deps.changes;
    this.#bell = deps.bell;
  }

  find(run: string): Promise<RunRow | undefined> {
    return this.#store.db.selectFrom('runs').selectAll().where('run', '=', run).executeTakeFirst();
  }

  /**
   * Changes a run together with `also`, all or none, and tells readers. Throws `StoreConflict` when the
   * node's journal went on since `row` was read.
   */
  async change(
    row: RunRow,
    change: RunChange,
    nowMs: number,
    also: readonly Write[] = [],
  ): Promise<void> {
    const next = changedRow(row, change);
    const { state, fold, last_seq, head, guess, guessed_at, open_steps, keeps } = next;
    const update: Write = {
      query: this.#store.db
        .updateTable('runs')
        .set({ state, fold, last_seq, head, guess, guessed_at, open_steps, keeps })
        .where('run', '=', row.run)
        .where('last_seq', '=', row.last_seq),
      expectRows: 1,
    };
    const told =
      next.state === row.state
        ? []
        : [this.#changes.record({ type: 'run', view: viewOf(next) }, nowMs)];
    await this.#store.write([update, ...told, ...also]);
    this.#bell.ring(runTopic(row.run));
    if (told.length > 0) this.#changes.ring();
  }
}

function changedRow(row: RunRow, { journal, guess }: RunChange): RunRow {
  const next: RunRow = {
    ...row,
    ...(journal === undefined
      ? {}
      : {
          fold: JSON.stringify(journal.fold),
          last_seq: journal.lastSeq,
          head: journal.head,
          open_steps: journal.openSteps === null ? null : JSON.stringify(journal.openSteps),
          keeps: journal.keeps ? 1 : 0,
        }),
    ...(guess === undefined
      ? {}
      : {
          guess: guess === null ? null : JSON.stringify(guess.problem),
          guessed_at: guess === null ? null : guess.atMs,
        }),
  };
  return { ...next, state: stateOf(next) };
}
