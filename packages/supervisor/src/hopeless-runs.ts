import type { Journal, RunEntry } from '@hypha/journal';
import { HyphaError } from '@hypha/protocol';
import type { Logger } from '@hypha/service';
import { recordedProblem } from './recorded-problem.ts';
import { LIMITS } from './supervisor-limits.ts';

interface Stuck {
  /** Where the journal of the run ended when its runner died. */
  readonly seq: number;
  /** How many epochs ago it got there. */
  readonly epochs: number;
}

/**
 * Ends runs under which one runner after the other dies without getting any further: they would be taken
 * over for ever and reach no end (G2). A runner holds many runs and its death tells nothing of which one was
 * to blame, so runs that saw a few deaths are suspects and handed out one at a time: of the deaths after
 * that, only the suspect that was there is blamed. Counted in memory: a supervisor that is new gives a run
 * new chances.
 */
export class HopelessRuns {
  readonly #deps: { readonly journal: Journal; readonly log: Logger };
  readonly #stuck = new Map<string, Stuck>();

  constructor(deps: { readonly journal: Journal; readonly log: Logger }) {
    this.#deps = deps;
  }

  /** Deaths that may be the fault of the run, once they are enough to suspect it; 0 below that. */
  suspicionOf({ run, seq }: Pick<RunEntry, 'run' | 'seq'>): number {
    const stuck = this.#stuck.get(run);
    if (stuck === undefined || hasMoved(seq, stuck)) return 0;
    return stuck.epochs < LIMITS.suspectEpochs ? 0 : stuck.epochs;
  }

  /**
   * Runs were taken over from one dead runner. What a run has made is handed to the reconciler when it is given
   * up.
   */
  async judge(entries: readonly RunEntry[]): Promise<void> {
    this.#forgetEnded();
    const suspects = entries.filter((entry) => this.suspicionOf(entry) > 0);
    for (const entry of entries) {
      const { run, seq } = entry;
      const before = this.#stuck.get(run);
      const isStuck = before !== undefined && !hasMoved(seq, before);
      // Between two suspects nobody can tell.
      const isBlamed = suspects.length <= 1 || !suspects.includes(entry);
      const epochs = isStuck ? before.epochs + Number(isBlamed) : 1;
      this.#stuck.set(run, { seq, epochs });
      if (epochs >= LIMITS.fruitlessEpochsMax) await this.#giveUp(entry, epochs);
    }
  }

  async #giveUp(entry: RunEntry, epochs: number): Promise<void> {
    const { run, state } = entry;
    const { journal, log } = this.#deps;
    this.#stuck.delete(run);
    const error = new HyphaError('E_INTERNAL', `${epochs} runners died under ${run} one by one`, {
      hint: 'see the log of the node; what the run made is removed as far as possible',
    });
    log.error({ run, epochs, alarm: true }, 'run given up');
    await journal.append(run, { by: 'supervisor' }, [
      {
        type: 'finished',
        state: state === 'accepted' ? 'rejected' : 'failed',
        problem: recordedProblem(error),
        undone: 0,
        leftovers: journal.records
          .listProvisional(entry)
          .filter((step) => step.run === run)
          .map(({ rid, kind, name }) => ({ rid, kind, name, reason: 'the run was given up' })),
      },
    ]);
  }

  #forgetEnded(): void {
    for (const run of this.#stuck.keys()) {
      if (this.#deps.journal.findUnfinished(run) === undefined) this.#stuck.delete(run);
    }
  }
}

/** An epoch that only began has `started` to show for it. */
function hasMoved(seq: number, before: Stuck): boolean {
  return seq > before.seq + 1;
}
