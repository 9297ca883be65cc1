import type { Journal, RunEntry } from '@hypha/journal';
import { HyphaError } from '@hypha/protocol';
import type { Logger } from '@hypha/service';
import { recordedProblem } from './recorded-problem.ts';
import { LIMITS } from './supervisor-limits.ts';

/**
 * Ends runs under which one runner after the other dies without getting any further: they would be taken
 * over for ever and reach no end (G2). Counted in memory: a supervisor that is new gives a run new chances.
 */
export class HopelessRuns {
  readonly #deps: { readonly journal: Journal; readonly log: Logger };
  // run → where its journal ended, and how many epochs ago it got there
  readonly #stuck = new Map<string, { seq: number; epochs: number }>();

  constructor(deps: { readonly journal: Journal; readonly log: Logger }) {
    this.#deps = deps;
  }

  /** A run was taken over. What it made is handed to the reconciler when it is given up. */
  async judge(entry: RunEntry): Promise<void> {
    const { run, seq, state } = entry;
    const before = this.#stuck.get(run);
    // An epoch that only began has `started` to show for it.
    const isStuck = before !== undefined && seq <= before.seq + 1;
    const epochs = isStuck ? before.epochs + 1 : 1;
    this.#stuck.set(run, { seq, epochs });
    if (epochs < LIMITS.fruitlessEpochsMax) return;
    this.#stuck.delete(run);
    const error = new HyphaError('E_INTERNAL', `${epochs} runners died under ${run} one by one`, {
      hint: 'see the log of the node; what the run made is removed as far as possible',
    });
    this.#deps.log.error({ run, epochs, alarm: true }, 'run given up');
    await this.#deps.journal.append(run, { by: 'supervisor' }, [
      {
        type: 'finished',
        state: state === 'accepted' ? 'rejected' : 'failed',
        problem: recordedProblem(error),
        undone: 0,
        leftovers: this.#deps.journal.records
          .listProvisional(entry)
          .filter((step) => step.run === run)
          .map(({ rid, kind, name }) => ({ rid, kind, name, reason: 'the run was given up' })),
      },
    ]);
  }
}
