import { isClaimable, type Journal, type Lane, type RunEntry } from '@hypha/journal';
import { HyphaError } from '@hypha/protocol';
import type { Logger } from '@hypha/service';
import { recordedProblem } from './recorded-problem.ts';
import { jobIdOf, type RunJob } from './run-queue.ts';
import { LIMITS } from './supervisor-limits.ts';

interface DispatcherDeps {
  readonly journal: Journal;
  readonly queue: {
    add(jobs: readonly RunJob[]): Promise<boolean>;
    reset(jobs: readonly RunJob[]): Promise<void>;
  };
  /** How many runners could take a job, were they idle. */
  readonly runners: () => number;
  readonly log: Logger;
}

/**
 * Gives each deployment's oldest unfinished run its turn by a job in the queue, and cancels runs that a
 * higher generation replaced before they began (design §8). Works from the journal alone, so that it can be
 * repeated at any time and a queue that lost everything is filled again.
 */
export class Dispatcher {
  readonly #deps: DispatcherDeps;
  readonly #held = new Set<string>();
  // Jobs the queue was given and has perhaps not lost
  #given = new Set<string>();
  // Jobs that waited at refills although a runner was idle → how doubtful that makes the queue
  #ignored = new Map<string, number>();
  // Runs that began since the last refill
  #begun = 0;
  #passes: Promise<void> = Promise.resolve();
  #isWaiting = false;

  constructor(deps: DispatcherDeps) {
    this.#deps = deps;
    deps.journal.subscribe((_entry, events) => {
      if (events.some(({ body }) => body.type === 'started')) this.#begun++;
    });
  }

  /** No job for this run until it is let go. */
  hold(run: string): void {
    this.#held.add(run);
  }

  letGo(run: string): void {
    this.#held.delete(run);
    this.kick();
  }

  /** One more pass soon: one that has not begun yet serves all who ask. */
  kick(): void {
    if (this.#isWaiting) return;
    this.#isWaiting = true;
    this.#passes = this.#passes.then(() => {
      this.#isWaiting = false;
      return this.#pass();
    });
  }

  /** As `kick`, and gives the queue again what it was given: it may have lost anything at any time. */
  refill(): void {
    this.#given = new Set();
    this.#passes = this.#passes.then(() => this.#doubt());
    this.kick();
  }

  /** Resolves when every pass asked for is done. */
  async idle(): Promise<void> {
    await this.#passes;
  }

  /**
   * A job waits for nothing while a runner is idle. When one does, time after time, Redis holds something that
   * keeps it from being handed out, and adding it again changes nothing: only a fresh queue does. A runner
   * that is seen idle may only be between two runs, unless fewer began than there are such runners.
   */
  async #doubt(): Promise<void> {
    const { journal, queue, log, runners } = this.#deps;
    const entries = journal.listLanes().flatMap(({ runs }) => runs);
    const idle = runners() - entries.filter(({ holder }) => holder !== null).length;
    const weight = this.#begun < idle ? LIMITS.doubtQuiet : LIMITS.doubtBusy;
    this.#begun = 0;
    const jobs = this.#listWaiting();
    this.#ignored = new Map(
      jobs.map((job) => {
        const before = this.#ignored.get(jobIdOf(job)) ?? 0;
        return [jobIdOf(job), idle > 0 ? before + weight : before];
      }),
    );
    if (Math.max(0, ...this.#ignored.values()) < LIMITS.doubtMax) return;
    log.error({ jobs: jobs.slice(0, 10), alarm: true }, 'queue hands out nothing and is emptied');
    this.#ignored = new Map();
    await queue.reset(jobs);
  }

  /** At most as many as one pass gives. */
  #listWaiting(): RunJob[] {
    const turns = this.#deps.journal.listLanes().flatMap(({ runs }) => runs.slice(0, 1));
    return turns
      .filter((entry) => isWaiting(entry) && !this.#held.has(entry.run))
      .filter((entry) => !this.#given.has(jobIdOf(entry)))
      .slice(0, LIMITS.jobsPerPass)
      .map(({ run, epoch }) => ({ run, epoch }));
  }

  async #pass(): Promise<void> {
    const { journal, queue, log } = this.#deps;
    try {
      for (const run of journal.listLanes().flatMap(superseded)) await this.#supersede(run);
      const jobs = this.#listWaiting();
      if (!(await queue.add(jobs))) return;
      for (const job of jobs) this.#given.add(jobIdOf(job));
    } catch (err) {
      // The next sweep tries again.
      log.error({ err }, 'dispatch failed');
    }
  }

  async #supersede(entry: RunEntry): Promise<void> {
    const { run, realm, deployment, generation } = entry;
    const error = new HyphaError(
      'E_SUPERSEDED',
      `generation ${generation} of ${realm}/${deployment} was replaced before ${run} began`,
      { hint: 'see the newer generation: hypha deployment show' },
    );
    const isCancelled = await this.#deps.journal.finishUnclaimed(run, {
      type: 'finished',
      state: 'cancelled',
      problem: recordedProblem(error),
      undone: 0,
      leftovers: [],
    });
    if (isCancelled) this.#deps.log.info({ run, generation }, 'run superseded');
  }
}

/** Every run but the newest that no runner has begun. */
function superseded({ runs }: Lane): RunEntry[] {
  return runs.slice(0, -1).filter((entry) => entry.state === 'accepted' && entry.holder === null);
}

function isWaiting(entry: RunEntry): boolean {
  return isClaimable(entry) && entry.holder === null;
}
