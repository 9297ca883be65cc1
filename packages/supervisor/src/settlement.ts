import type { Journal, RunEntry } from '@hypha/journal';
import type { Logger } from '@hypha/service';
import type { Reconciler } from './reconciler.ts';

interface SettlementDeps {
  readonly journal: Journal;
  readonly reconciler: Pick<Reconciler, 'settle'>;
  readonly log: Logger;
}

/**
 * Ends committed runs: once what they no longer declare was removed, or that took too long, `finished` is
 * written with what is left over (design §10 "Commit point"). If we die before that, it is done after the
 * next start.
 */
export class Settlement {
  readonly #deps: SettlementDeps;
  // run → its settling
  readonly #underWay = new Map<string, Promise<void>>();
  #isStopping = false;

  constructor(deps: SettlementDeps) {
    this.#deps = deps;
  }

  start(): void {
    this.#deps.journal.subscribe((entry) => this.#consider(entry));
    this.sweep();
  }

  /** Takes up what a failure left behind. */
  sweep(): void {
    const lanes = this.#deps.journal.listLanes();
    for (const entry of lanes.flatMap(({ runs }) => runs)) this.#consider(entry);
  }

  async stop(): Promise<void> {
    this.#isStopping = true;
    await Promise.all(this.#underWay.values());
  }

  #consider(entry: RunEntry): void {
    const { run, state } = entry;
    if (state !== 'committed' || this.#isStopping || this.#underWay.has(run)) return;
    const settling = this.#settle(entry).finally(() => this.#underWay.delete(run));
    this.#underWay.set(run, settling);
  }

  async #settle(entry: RunEntry): Promise<void> {
    const { journal, reconciler, log } = this.#deps;
    const { run, deployment, generation, mode } = entry;
    try {
      // Plans and tasks leave nothing undeclared: what others did is not theirs to wait for.
      const isRevision = mode === 'apply' || mode === 'destroy';
      const leftovers = isRevision ? await reconciler.settle(entry) : [];
      // The next start finds it committed and settles it again.
      if (this.#isStopping) return;
      await journal.append(run, { by: 'supervisor' }, [
        { type: 'finished', state: 'succeeded', problem: null, undone: 0, leftovers },
      ]);
      log.info({ run, deployment, generation, leftovers: leftovers.length }, 'run succeeded');
    } catch (err) {
      // The sweep tries again.
      log.error({ err, run }, 'run not settled');
    }
  }
}
