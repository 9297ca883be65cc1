import type {
  DesiredWorld,
  Journal,
  ProvisionalEntry,
  ResourceEntry,
  RunEntry,
} from '@hypha/journal';
import { HyphaError, type JournalEvent, type Leftover } from '@hypha/protocol';
import { RECONCILER, type ResourceKind, type Sals } from '@hypha/sal';
import type { Logger } from '@hypha/service';
import type { Clock } from './clock.ts';
import { InFlightWork } from './in-flight-work.ts';
import { planReconcile, type ReconcileTask } from './reconcile-plan.ts';
import { RepairHistory } from './repair-history.ts';
import { LIMITS } from './supervisor-limits.ts';
import { Turns } from './turns.ts';

/** How often and how long, milliseconds; see `LIMITS`. */
export type ReconcilePace = {
  readonly [K in
    | 'observeMs'
    | 'settleMs'
    | 'settleRetryMs'
    | 'repairMsMin'
    | 'repairMsMax']: number;
};

interface ReconcilerDeps {
  readonly journal: Journal;
  readonly sals: Sals;
  readonly log: Logger;
  readonly clock: Clock;
  readonly pace: ReconcilePace;
}

/**
 * Makes the node match its record, for ever (design §3): brings back what is not as recorded, removes what is
 * no longer declared, drops what a replace had parked. Takes no input but the record, so a reboot, a crash
 * and a quiet day are one path. Leaves alone whatever an unfinished run has an intent on.
 *
 * R1  Nothing is removed in a deployment while a run of it is under way.
 * R2  A run's intent is durable only after work on its resource has ended here.
 * R3  Data is removed only where a signed `deleteData` said so: the record carries it.
 */
export class Reconciler {
  readonly #deps: ReconcilerDeps;
  readonly #history: RepairHistory;
  readonly #work = new InFlightWork<ReconcileTask>();
  readonly #turns = new Turns(LIMITS.deploymentsAtOnce);
  readonly #stopping = new AbortController();
  // rid → run that has an intent on it
  readonly #intents = new Map<string, string>();
  #loop: Promise<void> = Promise.resolve();

  constructor(deps: ReconcilerDeps) {
    this.#deps = deps;
    this.#history = new RepairHistory(deps.clock, deps.pace);
  }

  /** Learns what unfinished runs have an intent on, then works until `stop`. */
  async start(): Promise<void> {
    const { journal } = this.#deps;
    journal.subscribe((entry, events) => this.#follow(entry, events));
    const begun = journal.listLanes().flatMap(({ runs }) => runs.filter(({ seq }) => seq > 1));
    for (const entry of begun) this.#follow(entry, await journal.runs.readAllEvents(entry.run));
    this.#loop = this.#run();
  }

  /** Ends what is being done; everything stays as it is. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#loop;
    await this.#turns.idle();
  }

  /** Before a run goes on: what its deployment no longer declares is left until it ends (R1). */
  async makeWay({ realm, deployment, run }: RunEntry): Promise<void> {
    await this.#work.interrupt(
      ({ action, entry }) =>
        action !== 'converge' && entry.realm === realm && entry.deployment === deployment,
      new HyphaError('E_CONFLICT', `${run} of ${realm}/${deployment} goes on`),
    );
  }

  /** Before an intent on this resource is durable (R2). Holds until the run ends. */
  async leaveAlone(rid: string, run: string): Promise<void> {
    if (this.#intents.get(rid) === run) return;
    this.#intents.set(rid, run);
    await this.#work.interrupt(
      ({ entry }) => entry.rid === rid,
      new HyphaError('E_CONFLICT', `${run} works on ${rid}`),
    );
  }

  /** Why the resource is not as recorded, after the last try; null when nothing is known against it. */
  reasonOf(rid: string): string | null {
    return this.#history.reasonOf(rid);
  }

  /**
   * After a commit: removes what is no longer declared and drops what was parked. Resolves when that is done or
   * took too long, with what is left and why; it is tried for ever after.
   */
  async settle(run: RunEntry): Promise<Leftover[]> {
    const { clock, pace } = this.#deps;
    // Most runs leave nothing: no timer for those.
    if (this.#listUndeclared(run).length === 0) return [];
    const deadline = this.#within(pace.settleMs);
    for (let attempt = 1; ; attempt++) {
      const tasks = this.#listUndeclared(run);
      if (tasks.length === 0) return [];
      if (deadline.aborted) return tasks.map((task) => this.#leftoverOf(task));
      if (attempt > 1) await clock.sleep(pace.settleRetryMs * (attempt - 1), deadline);
      else await this.#interrupt(run, deadline);
      const work = () => this.#workOff(tasks, deadline, 'at once');
      // What has not had its turn by then finds its signal aborted and does nothing.
      await Promise.race([this.#turns.take(keyOf(run), work, 'at once'), aborted(deadline)]);
    }
  }

  #listUndeclared(run: RunEntry): ReconcileTask[] {
    const records = this.#deps.journal.records.listRecords(run);
    if (!records.some(({ status, unsettled }) => status === 'removing' || unsettled)) return [];
    return this.#plan({ records, provisional: [] }).flatMap(({ tasks }) =>
      tasks.filter(({ action }) => action !== 'converge'),
    );
  }

  /**
   * After a reboot or a halt: what an unfinished run had made is made again before the run goes on (design §10), and
   * so that its undo knows it again. What cannot be is left to the run's own next steps. A run that is being undone
   * needs none of it.
   */
  async restore(run: RunEntry): Promise<void> {
    const { journal, log } = this.#deps;
    if (run.state === 'undoing') return;
    const steps = journal.records.listProvisional(run);
    const own = steps.filter((step) => step.run === run.run);
    const made = own.filter(({ settled }) => settled);
    const newest = [...new Map(made.map((step) => [step.rid, step])).values()];
    const records = [
      ...(await this.#listFailed(run, steps)),
      ...newest.map((step) => ({ ...step, madeBy: madeBy(step, made) })),
    ];
    for (const record of records) {
      try {
        await this.#kindOf(record.kind).converge(record, this.#within(LIMITS.convergeMsMax));
      } catch (err) {
        log.error({ err, run: run.run, rid: record.rid }, 'resource of a run not restored');
      }
    }
  }

  /**
   * What the deployment had before, where the run tried to change it and only failed: it is as it was. That is not
   * the record where a failure before it was kept.
   */
  async #listFailed(run: RunEntry, steps: readonly ProvisionalEntry[]): Promise<ResourceEntry[]> {
    const { runs, records } = this.#deps.journal;
    const own = steps.filter((step) => step.run === run.run);
    const kept = new Set(steps.filter((step) => step.run !== run.run).map(({ rid }) => rid));
    const before = records
      .listRecords(run)
      .filter(({ rid, status }) => status === 'committed' && !kept.has(rid));
    if (own.every(({ settled }) => settled) || before.length === 0) return [];
    const events = await runs.readAllEvents(run.run);
    const errors = new Set(
      events.map(({ body }) => (body.type === 'step-error' ? body.step : undefined)),
    );
    const failed = new Set(own.filter(({ step }) => errors.has(step)).map(({ rid }) => rid));
    for (const { rid, step } of own) if (!errors.has(step)) failed.delete(rid);
    return before.filter(({ rid }) => failed.has(rid));
  }

  /** Stops everything that runs, without forgetting it: for a node that shuts down. Call after `stop`. */
  async halt(): Promise<void> {
    const { journal, log } = this.#deps;
    const { records, provisional } = journal.records.readWorld();
    const turns = new Turns(LIMITS.haltsAtOnce);
    await Promise.all(
      [...records, ...provisional].map((record) =>
        turns.take(record.rid, async () => {
          try {
            await this.#kindOf(record.kind).halt?.(record, AbortSignal.timeout(LIMITS.haltMsMax));
          } catch (err) {
            log.error({ err, rid: record.rid }, 'resource not halted');
          }
        }),
      ),
    );
  }

  /** A repair can take minutes, and the end of a run would wait for it. It is begun again later. */
  async #interrupt(of: RunEntry, deadline: AbortSignal): Promise<void> {
    const reason = new HyphaError('E_CONFLICT', `${of.run} ends`);
    const isOf = ({ entry }: ReconcileTask) => keyOf(entry) === keyOf(of);
    await Promise.race([this.#work.interrupt(isOf, reason), aborted(deadline)]);
  }

  #follow({ run, mode }: RunEntry, events: readonly JournalEvent[]): void {
    // It has no effect, and what it looks at is looked after meanwhile.
    if (mode === 'plan') return;
    for (const { body } of events) {
      if (body.type === 'step-intent' && body.rid !== null) this.#intents.set(body.rid, run);
      if (body.type !== 'committed' && body.type !== 'finished') continue;
      for (const [rid, owner] of this.#intents) if (owner === run) this.#intents.delete(rid);
    }
  }

  async #run(): Promise<void> {
    const { log, clock, pace } = this.#deps;
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      try {
        this.#pass();
      } catch (err) {
        log.error({ err }, 'reconcile pass failed');
      }
      await clock.sleep(pace.observeMs, signal);
    }
  }

  /** Begins work where none is under way: a slow deployment keeps no other waiting. */
  #pass(): void {
    for (const deployment of this.#plan(this.#deps.journal.records.readWorld())) {
      const key = keyOf(deployment);
      if (this.#turns.isTaken(key)) continue;
      // `workOff` never rejects.
      void this.#turns.take(key, () =>
        this.#workOff(deployment.tasks, this.#stopping.signal, 'when due'),
      );
    }
  }

  #plan(world: DesiredWorld) {
    const { journal } = this.#deps;
    const busy = new Set(journal.listLanes().filter(isUnderWay).map(keyOf));
    return planReconcile(world, {
      isLeftAlone: (rid) => this.#intents.has(rid),
      isBusy: (of) => busy.has(keyOf(of)),
    });
  }

  async #workOff(
    tasks: readonly ReconcileTask[],
    signal: AbortSignal,
    pace: 'at once' | 'when due',
  ): Promise<void> {
    let isBlocked = false;
    for (const task of tasks) {
      if (signal.aborted) return;
      const isRemoval = task.action === 'remove';
      // What still stands on a resource keeps that one too.
      if (isRemoval && isBlocked) continue;
      // A repair decides for itself, once it has looked.
      const isDue = task.action === 'converge' || this.#history.isDue(task.entry.rid);
      const isDone = (pace === 'at once' || isDue) && (await this.#attempt(task, signal));
      isBlocked ||= isRemoval && !isDone;
    }
  }

  /** Never rejects. True when the resource is as the record wants it. */
  async #attempt(task: ReconcileTask, signal: AbortSignal): Promise<boolean> {
    const { action, entry } = task;
    const { rid, kind, name } = entry;
    let isInterrupted = false;
    let isDone = false;
    try {
      await this.#work.run(task, signal, async (stop) => {
        if (!this.#isWanted(task)) return;
        stop.addEventListener('abort', () => {
          isInterrupted = true;
        });
        if (action === 'converge') await this.#converge(entry, stop);
        if (action === 'remove') await this.#remove(entry, stop);
        if (action === 'settle') await this.#settleOne(entry, stop);
        isDone = true;
      });
      return isDone;
    } catch (err) {
      // Not its fault: a run has something to do with it, or we stop.
      if (isInterrupted) return false;
      const reason = err instanceof HyphaError ? `${err.code}: ${err.message}` : 'internal error';
      this.#history.noteFailure(rid, reason);
      this.#deps.log.warn({ err, rid, kind, resource: name, action }, 'reconcile failed');
      return false;
    }
  }

  /** Time may have passed since the plan, and with it the record. */
  #isWanted({ action, entry }: ReconcileTask): boolean {
    const { journal } = this.#deps;
    if (this.#intents.has(entry.rid)) return false;
    if (journal.records.findRecord(entry)?.version !== entry.version) return false;
    if (action === 'converge') return true;
    return !journal.listLanes().some((lane) => isUnderWay(lane) && keyOf(lane) === keyOf(entry));
  }

  async #converge(entry: ResourceEntry, stop: AbortSignal): Promise<void> {
    const { rid, name } = entry;
    const kind = this.#kindOf(entry.kind);
    const { converged, state } = await kind.observe(entry, within(LIMITS.observeMsMax, stop));
    if (converged) {
      this.#history.forget(rid);
      return;
    }
    if (!this.#history.isDue(rid)) return;
    this.#deps.log.info({ rid, kind: entry.kind, resource: name, state }, 'resource is repaired');
    await kind.converge(entry, within(LIMITS.convergeMsMax, stop));
    this.#history.forget(rid);
  }

  async #remove(entry: ResourceEntry, stop: AbortSignal): Promise<void> {
    const { rid, kind, name, deleteData } = entry;
    const signal = within(LIMITS.removeMsMax, stop);
    await this.#kindOf(kind).remove(entry, { deleteData, signal });
    const isGone = await this.#deps.journal.records.dropRecord(entry);
    this.#history.forget(rid);
    if (isGone) this.#deps.log.info({ rid, kind, resource: name }, 'resource removed');
  }

  async #settleOne(entry: ResourceEntry, stop: AbortSignal): Promise<void> {
    await this.#kindOf(entry.kind).settle?.(entry, within(LIMITS.removeMsMax, stop));
    await this.#deps.journal.records.markSettled(entry);
  }

  #leftoverOf({ entry, action }: ReconcileTask): Leftover {
    const { rid, kind, name } = entry;
    const doing =
      action === 'remove' ? 'it is still being removed' : 'its predecessor is still there';
    return { rid, kind, name, reason: this.#history.reasonOf(rid) ?? doing };
  }

  #kindOf(kind: string): ResourceKind {
    const found = this.#deps.sals.findKind(kind);
    if (found !== undefined) return found;
    throw new HyphaError('E_SAL_UNAVAILABLE', `this node has nothing that knows a ${kind}`);
  }

  #within(ms: number): AbortSignal {
    return within(ms, this.#stopping.signal);
  }
}

/** The labels a resource has from the steps of its run; what was there before the run is not its own. */
function madeBy(last: ProvisionalEntry, made: readonly ProvisionalEntry[]) {
  const opOf = ({ run, step }: ProvisionalEntry) => `${run}/${step}`;
  const creation = made.find(({ rid, action }) => rid === last.rid && action === 'create');
  return { createdBy: creation === undefined ? RECONCILER : opOf(creation), lastOp: opOf(last) };
}

function within(ms: number, signal: AbortSignal): AbortSignal {
  return AbortSignal.any([signal, AbortSignal.timeout(ms)]);
}

async function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
}

/** A runner may be at work in this deployment: its oldest run is neither waiting nor past its commit. */
function isUnderWay({ runs }: { readonly runs: readonly RunEntry[] }): boolean {
  const [first] = runs;
  if (first === undefined) return false;
  return first.state === 'accepted' ? first.holder !== null : first.state !== 'committed';
}

function keyOf({ realm, deployment }: { readonly realm: string; readonly deployment: string }) {
  return `${realm}/${deployment}`;
}
