import { isClaimable, type Journal, type Lane, type RunEntry } from '@hypha/journal';
import { HyphaError } from '@hypha/protocol';
import type { Logger } from '@hypha/service';
import type { Clock } from './clock.ts';
import type { HopelessRuns } from './hopeless-runs.ts';
import { recordedProblem } from './recorded-problem.ts';
import { jobIdOf, type RunJob } from './run-queue.ts';
import { LIMITS } from './supervisor-limits.ts';

interface DispatcherDeps {
  readonly journal: Journal;
  readonly queue: {
    add(jobs: readonly RunJob[]): Promise<boolean>;
    reset(jobs: readonly RunJob[]): Promise<void>;
  };
  /** How many runs the runners there are could hold at once. */
  readonly slots: () => number;
  /** Runners without a run take none, although there are some: others have to be started. */
  readonly replaceIdle: () => void;
  /** The run goes no way but back: it waits for no time. */
  readonly isRefused: (run: string) => boolean;
  readonly hopeless: Pick<HopelessRuns, 'suspicionOf'>;
  readonly clock: Pick<Clock, 'nowMs'>;
  readonly log: Logger;
}

/**
 * Gives each deployment's oldest unfinished run its turn by a job in the queue, and cancels runs that a
 * higher generation replaced before they began (design §8). A run that waits gets its job when its time has
 * come. Works from the journal alone, so that it can be repeated at any time and a queue that lost everything
 * is filled again.
 */
export class Dispatcher {
  readonly #deps: DispatcherDeps;
  readonly #held = new Set<string>();
  // Jobs the queue was given and has perhaps not lost
  #given = new Set<string>();
  // Jobs that waited at refills although a runner had room → how doubtful that makes the queue
  #ignored = new Map<string, number>();
  // Runs that began since the last refill
  #begun = 0;
  // Times in a row that the queue was emptied, with no run begun after it
  #resets = 0;
  #passes: Promise<void> = Promise.resolve();
  #isWaiting = false;
  #alarm: NodeJS.Timeout | undefined;
  // Wall clock at which the alarm is due
  #alarmAt = Number.POSITIVE_INFINITY;
  #isClosed = false;

  constructor(deps: DispatcherDeps) {
    this.#deps = deps;
    deps.journal.subscribe((_entry, events) => {
      if (!events.some(({ body }) => body.type === 'started')) return;
      this.#begun++;
      this.#resets = 0;
    });
  }

  /** No job for this run until it is let go. */
  hold(run: string): void {
    this.#held.add(run);
  }

  /** Nobody may have it yet, whatever job says so. */
  isHeld(run: string): boolean {
    return this.#held.has(run);
  }

  letGo(run: string): void {
    this.#held.delete(run);
    this.kick();
  }

  /** One more pass soon: one that has not begun yet serves all who ask. */
  kick(): void {
    if (this.#isWaiting || this.#isClosed) return;
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

  /**
   * A pass at this time, epoch milliseconds: a run has begun to wait until then. Clocks jump, so that one who waits
   * long looks again every now and then.
   */
  wakeAt(timeMs: number): void {
    if (timeMs >= this.#alarmAt || this.#isClosed) return;
    clearTimeout(this.#alarm);
    this.#alarmAt = timeMs;
    const inMs = Math.max(0, timeMs - this.#deps.clock.nowMs());
    this.#alarm = setTimeout(
      () => {
        this.#alarmAt = Number.POSITIVE_INFINITY;
        this.kick();
      },
      Math.min(inMs, LIMITS.wakeLookMs),
    );
  }

  #setAlarm(lanes: readonly Lane[]): void {
    const now = this.#deps.clock.nowMs();
    for (const { runs } of lanes) {
      const wakeAt = runs[0]?.wakeAt ?? null;
      if (wakeAt !== null && wakeAt > now) this.wakeAt(wakeAt);
    }
  }

  /** Resolves when every pass asked for is done. */
  async idle(): Promise<void> {
    await this.#passes;
  }

  /** No pass begins after this. */
  async close(): Promise<void> {
    this.#isClosed = true;
    clearTimeout(this.#alarm);
    await this.idle();
  }

  /**
   * A job waits for nothing while a runner has room. When one does, time after time, Redis holds something that
   * keeps it from being handed out, and adding it again changes nothing: only a fresh queue does. A runner
   * that is seen with room may only be between two runs, unless fewer began than there is room for. When a
   * fresh queue changes nothing either, it is the runners.
   */
  async #doubt(): Promise<void> {
    const { journal, queue, log, slots } = this.#deps;
    const isHeld = (entry: RunEntry) => entry.holder !== null && isClaimable(entry);
    const held = journal.listLanes().flatMap(({ runs }) => runs.filter(isHeld));
    const idle = slots() - held.length;
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
    this.#resets++;
    if (this.#resets > LIMITS.resetsMax) this.#deps.replaceIdle();
    await queue.reset(jobs);
  }

  /** At most as many as one pass gives. */
  #listWaiting(): RunJob[] {
    const { journal, clock, hopeless } = this.#deps;
    const now = clock.nowMs();
    const turns: RunEntry[] = [];
    const suspects: RunEntry[] = [];
    for (const { runs } of journal.listLanes()) {
      const [first] = runs;
      if (first === undefined) continue;
      if (hopeless.suspicionOf(first) > 0) suspects.push(first);
      else if (this.#isDue(first, now)) turns.push(first);
    }
    return [...turns, ...this.#pickSuspect(suspects, now)]
      .filter((entry) => !this.#held.has(entry.run) && !this.#given.has(jobIdOf(entry)))
      .slice(0, LIMITS.jobsPerPass)
      .map(({ run, epoch }) => ({ run, epoch }));
  }

  /** Of runs under which runners die one at a time is handed out: the least suspicious, then the oldest. */
  #pickSuspect(suspects: readonly RunEntry[], nowMs: number): RunEntry[] {
    const rank = (entry: RunEntry) => this.#deps.hopeless.suspicionOf(entry);
    const isOut = (entry: RunEntry) => entry.holder !== null || this.#given.has(jobIdOf(entry));
    if (suspects.some(isOut)) return [];
    return suspects
      .filter((entry) => this.#isDue(entry, nowMs))
      .sort((a, b) => rank(a) - rank(b) || a.position - b.position)
      .slice(0, 1);
  }

  /** A runner may take it: nobody has it, and if it waits, its time has come. */
  #isDue(entry: RunEntry, nowMs: number): boolean {
    const { run, holder, wakeAt } = entry;
    if (holder !== null || !isClaimable(entry)) return false;
    return wakeAt === null || wakeAt <= nowMs || this.#deps.isRefused(run);
  }

  async #pass(): Promise<void> {
    const { journal, queue, log } = this.#deps;
    try {
      const lanes = journal.listLanes();
      for (const run of lanes.flatMap(superseded)) await this.#supersede(run);
      this.#setAlarm(lanes);
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

/** Every revision but the newest that no runner has begun. Plans and tasks replace nothing. */
function superseded({ runs }: Lane): RunEntry[] {
  if (runs.length < 2) return [];
  const revisions = runs.filter(({ mode }) => mode === 'apply' || mode === 'destroy');
  return revisions
    .slice(0, -1)
    .filter((entry) => entry.state === 'accepted' && entry.holder === null);
}
