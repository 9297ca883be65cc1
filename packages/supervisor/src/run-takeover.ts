import { isClaimable, type Journal, type RunEntry } from '@hypha/journal';
import type { Logger } from '@hypha/service';
import type { Dispatcher } from './dispatcher.ts';
import type { HopelessRuns } from './hopeless-runs.ts';
import type { Reconciler } from './reconciler.ts';
import { LIMITS } from './supervisor-limits.ts';
import { Turns } from './turns.ts';

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
  readonly #restores = new Turns(LIMITS.deploymentsAtOnce);
  #takeovers = 0;
  #isSweeping = false;

  constructor(deps: TakeoverDeps) {
    this.#deps = deps;
  }

  /** Runs taken over since this process began. */
  get takeovers(): number {
    return this.#takeovers;
  }

  /**
   * After a start, before any job is queued: runs whose runner is not expected back get a new epoch, and what they
   * had made is made again first: after a reboot, or because the node was halted, nothing of it may be running.
   */
  async recover(expected: ReadonlySet<string>): Promise<void> {
    const { dispatcher, reconciler, bootId, log } = this.#deps;
    for (const entry of this.#list(isClaimable)) {
      const { run, holder } = entry;
      if (holder !== null && !expected.has(holder)) await this.#takeOver(entry);
      const isAtWork = entry.bootId === bootId && holder !== null && expected.has(holder);
      // Null: no runner has begun it.
      if (entry.bootId === null || isAtWork) continue;
      log.info({ run }, 'resources of the run are restored');
      dispatcher.hold(run);
      // `restore` never rejects.
      void this.#restores
        .take(run, () => reconciler.restore(entry))
        .then(() => dispatcher.letGo(run));
    }
  }

  /** Everything this runner started is dead. Its runs get their next epoch and a new job at once. */
  async takeOverFrom(runner: string): Promise<void> {
    await this.#takeOverAll(this.#list((entry) => entry.holder === runner && isClaimable(entry)));
  }

  /**
   * Takes over what belongs to none of the living: it came to a runner after everything that one had was given
   * away. Never rejects: the next sweep tries again.
   * @param living runners that own runs, and those whose runs are being given away
   */
  async sweep(living: ReadonlySet<string>): Promise<void> {
    if (this.#isSweeping) return;
    const isLeft = ({ holder }: RunEntry) => holder !== null && !living.has(holder);
    const left = this.#list((entry) => isLeft(entry) && isClaimable(entry));
    if (left.length === 0) return;
    this.#isSweeping = true;
    try {
      await this.#takeOverAll(left);
    } catch (err) {
      this.#deps.log.error({ err }, 'runs of dead runners cannot be given away');
    } finally {
      this.#isSweeping = false;
    }
  }

  async #takeOverAll(owned: readonly RunEntry[]): Promise<void> {
    const taken = await Promise.allSettled(owned.map((entry) => this.#takeOver(entry)));
    await this.#deps.hopeless.judge(taken.flatMap(fulfilled).flat().filter(isClaimable));
    this.#deps.dispatcher.kick();
    const failed = taken.find(({ status }) => status === 'rejected');
    if (failed?.status === 'rejected') throw failed.reason;
  }

  /** None when its owner is another by now. */
  async #takeOver({ run, holder, epoch }: RunEntry): Promise<RunEntry[]> {
    const { journal, log } = this.#deps;
    const entry = await journal.takeOver(run, holder ?? undefined);
    if (entry.epoch === epoch) return [];
    this.#takeovers++;
    log.warn({ run, epoch: entry.epoch, runner: holder }, 'run taken over');
    return [entry];
  }

  #list(wanted: (entry: RunEntry) => boolean): RunEntry[] {
    return this.#deps.journal.listLanes().flatMap(({ runs }) => runs.filter(wanted));
  }
}

function fulfilled<T>(settled: PromiseSettledResult<T>): T[] {
  return settled.status === 'fulfilled' ? [settled.value] : [];
}
