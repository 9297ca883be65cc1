import { isClaimable, type Journal, type RunEntry } from '@hypha/journal';
import type { Logger } from '@hypha/service';
import type { Dispatcher } from './dispatcher.ts';
import type { HopelessRuns } from './hopeless-runs.ts';
import type { Reconciler } from './reconciler.ts';

interface TakeoverDeps {
  readonly journal: Journal;
  readonly dispatcher: Dispatcher;
  readonly reconciler: Pick<Reconciler, 'restore'>;
  readonly hopeless: HopelessRuns;
  readonly bootId: string;
  readonly log: Logger;
}

/** Hands runs of the dead to the living. */
export class RunTakeover {
  readonly #deps: TakeoverDeps;

  constructor(deps: TakeoverDeps) {
    this.#deps = deps;
  }

  /**
   * After a start, before any job is queued: runs whose runner is not expected back get a new epoch; after a
   * reboot what they had made is made again first.
   */
  async recover(expected: ReadonlySet<string>): Promise<void> {
    const { dispatcher, reconciler, bootId, log } = this.#deps;
    for (const entry of this.#list(isClaimable)) {
      const { run, holder } = entry;
      if (holder !== null && !expected.has(holder)) await this.#takeOver(entry);
      if (entry.bootId === null || entry.bootId === bootId) continue;
      log.info({ run }, 'resources of the run are restored after a reboot');
      dispatcher.hold(run);
      // `restore` never rejects.
      void reconciler.restore(entry).then(() => dispatcher.letGo(run));
    }
  }

  /** Everything this runner started is dead. Its runs get their next epoch and a new job at once. */
  async takeOverFrom(runner: string): Promise<void> {
    const owned = this.#list((entry) => isClaimable(entry) && entry.holder === runner);
    for (const entry of owned) await this.#takeOver(entry);
    this.#deps.dispatcher.kick();
  }

  async #takeOver({ run, holder }: RunEntry): Promise<void> {
    const { journal, hopeless, log } = this.#deps;
    const entry = await journal.takeOver(run);
    log.warn({ run, epoch: entry.epoch, runner: holder }, 'run taken over');
    await hopeless.judge(entry);
  }

  #list(wanted: (entry: RunEntry) => boolean): RunEntry[] {
    return this.#deps.journal.listLanes().flatMap(({ runs }) => runs.filter(wanted));
  }
}
