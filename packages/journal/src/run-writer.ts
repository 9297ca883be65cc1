import {
  type BodyOf,
  canonicalJson,
  type Envelope,
  HyphaError,
  type JournalBody,
  type JournalEvent,
  type Verifier,
} from '@hypha/protocol';
import { isStoreConflict } from '@hypha/store';
import { type ActiveRun, ActiveRuns, type Owner } from './active-runs.ts';
import { AppendPlan, type PlanDeps } from './append-plan.ts';
import { JOURNAL_LIMITS } from './journal-limits.ts';
import { KeyedLock } from './keyed-lock.ts';
import type { RunEntry } from './run-entry.ts';
import type { BuiltEvent, RunHead } from './run-head.ts';
import type { RunReader } from './run-reader.ts';
import {
  type Author,
  cancelledBody,
  demandCancellable,
  demandGoingOn,
  demandOwner,
  dueOf,
  isCancelled,
  isClaimable,
  isUnbegun,
  type RunnerAuthor,
} from './run-standing.ts';

/** Told once it is durable. */
export type OnAppended = (
  entry: RunEntry,
  events: readonly BuiltEvent[],
  /** Of a run that ended. */
  receipt: Envelope | undefined,
) => void;

interface WriterDeps extends PlanDeps {
  /** Of the store itself. */
  readonly reader: RunReader;
  readonly verifier: Verifier;
  readonly nowMs: () => number;
  readonly onAppended: OnAppended;
  /**
   * Told what became of a run that nothing was appended to, before anything else happens to it: whoever
   * keeps the newest entry never sees an older one after it.
   */
  readonly onChanged: (entry: RunEntry) => void;
}

/**
 * Appends to runs, one write each: the events, the end of the chain, and what the events mean for the
 * desired record, the reservations and the receipts. Ends of active runs are kept in memory. A run that is
 * written is locked; what failed is read again from the store before it is tried again.
 */
export class RunWriter {
  readonly #deps: WriterDeps;
  readonly #active: ActiveRuns;
  readonly #locks = new KeyedLock();

  constructor(deps: WriterDeps) {
    this.#deps = deps;
    this.#active = new ActiveRuns(deps.reader, deps.verifier);
  }

  /** A run that was just accepted, and the end of its journal: nothing has to be read to go on. */
  adopt(entry: RunEntry, head: RunHead): void {
    this.#active.keep({ entry, head });
  }

  /** Appends all or none; durable when it resolves. */
  async append(
    run: string,
    author: Author,
    bodies: readonly JournalBody[],
  ): Promise<readonly JournalEvent[]> {
    return await this.#locks.hold(run, () =>
      this.#retry(run, async (active) => {
        demandOwner(active.entry, author);
        const repeated = await this.#findRepeated(active, author, bodies);
        if (repeated !== undefined) return repeated;
        demandGoingOn(active.entry, bodies);
        return await this.#appendOnce(active, author, bodies);
      }),
    );
  }

  /** Ends a run that no runner has begun. False when one has, or when it ended by itself. */
  async finishUnclaimed(run: string, body: BodyOf<'finished'>): Promise<boolean> {
    return await this.#locks.hold(run, () =>
      this.#retry(run, async (active) => {
        if (!isUnbegun(active.entry)) return false;
        await this.#appendOnce(active, { by: 'supervisor' }, [body]);
        return true;
      }),
    );
  }

  /**
   * Accepts a cancel: durably the run begins no further step and does not commit. One that no runner has begun
   * ends here. Throws `E_TOO_LATE`.
   */
  async cancel(
    run: string,
    requestedAt: number,
  ): Promise<{ readonly entry: RunEntry; readonly existing: boolean }> {
    return await this.#locks.hold(run, () =>
      this.#retry(run, async ({ entry, head }) => {
        if (isCancelled(entry)) return { entry: this.#tell(entry), existing: true };
        demandCancellable(entry);
        const cancelled = { ...entry, cancelRequestedAt: requestedAt, wakeAt: null };
        if (isUnbegun(entry)) {
          const bodies = [cancelledBody(run)];
          const active = { entry: cancelled, head };
          const { next } = await this.#write(active, { by: 'supervisor' }, bodies);
          return { entry: next, existing: false };
        }
        const query = this.#deps.store.db
          .updateTable('run')
          .set({ cancelRequestedAt: requestedAt, wakeAt: null })
          .where('run', '=', run);
        await this.#deps.store.write([{ query, expectRows: 1 }]);
        return { entry: this.#keep({ entry: cancelled, head }), existing: false };
      }),
    );
  }

  /**
   * Lets go of a run that only waits: the next epoch, owned by nobody, to be queued at `wakeAtMs`, or at once
   * when it is cancelled. Asked again after a lost answer it says the same. Throws `E_STALE_EPOCH`.
   */
  async park(run: string, author: RunnerAuthor, wakeAtMs: number): Promise<RunEntry> {
    return await this.#locks.hold(run, async () => {
      const { entry, head } = await this.#active.load(run);
      const isParked =
        entry.epoch === author.epoch + 1 && entry.holder === null && head.seq === author.after;
      if (isParked && entry.state === 'running') return this.#tell(entry);
      demandOwner(entry, author);
      if (entry.state !== 'running' || head.seq !== author.after) {
        throw new HyphaError(
          'E_CONFLICT',
          `${run} cannot wait: it is ${entry.state} and has ${head.seq} events`,
        );
      }
      const wakeAt = entry.cancelRequestedAt === null ? wakeAtMs : null;
      return await this.#endEpoch({ entry: { ...entry, wakeAt }, head });
    });
  }

  /**
   * Makes a runner the owner of the newest epoch. Durable with its first append: an owner that wrote
   * nothing did nothing. The same owner may ask again. Throws `E_STALE_EPOCH`.
   */
  async claim(run: string, owner: Owner): Promise<RunEntry> {
    return await this.#locks.hold(run, async () => {
      const { entry, head } = await this.#active.load(run);
      const free = entry.holder === null || entry.holder === owner.runner;
      if (entry.epoch !== owner.epoch || !free || !isClaimable(entry)) {
        const reason = free ? entry.state : `owned by ${entry.holder}`;
        throw new HyphaError(
          'E_STALE_EPOCH',
          `${owner.runner} cannot claim ${run} in epoch ${owner.epoch}`,
          { details: { epoch: entry.epoch, reason } },
        );
      }
      return this.#tell(this.#active.claim({ entry, head }, owner));
    });
  }

  /**
   * Takes back a claim that its owner was never told of, so that the epoch is anybody's again. Nothing happens
   * once something was written under it.
   */
  async unclaim(run: string, owner: Pick<Owner, 'runner' | 'epoch'>): Promise<void> {
    await this.#locks.hold(run, async () => {
      if (!this.#active.isOnlyClaimed(run, owner)) return;
      this.#tell(this.#active.unclaim(await this.#active.load(run)));
    });
  }

  /**
   * A runner that comes back with what it holds, after this process or the connection was gone. What ended
   * or was committed meanwhile is still its own, so that it may ask for the answer it lost. Throws
   * `E_STALE_EPOCH`.
   */
  async reattach(run: string, owner: Owner): Promise<RunEntry> {
    const held = await this.#locks.hold(run, async () => (await this.#active.load(run)).entry);
    if (isClaimable(held)) return await this.claim(run, owner);
    if (held.epoch === owner.epoch && held.holder === owner.runner) return held;
    throw new HyphaError(
      'E_STALE_EPOCH',
      `${owner.runner} does not own ${run} in epoch ${owner.epoch}`,
    );
  }

  /**
   * Ends the ownership of a dead runner: the next epoch, owned by nobody, durably. From here its appends are
   * refused. Call only once everything it started is dead (design §7). Changes nothing when the owner is another
   * than the one that is named.
   */
  async takeOver(run: string, runner?: string): Promise<RunEntry> {
    return await this.#locks.hold(run, async () => {
      const active = await this.#active.load(run);
      const isMeant = runner === undefined || active.entry.holder === runner;
      return isMeant ? await this.#endEpoch(active) : this.#tell(active.entry);
    });
  }

  async #endEpoch({ entry, head }: ActiveRun): Promise<RunEntry> {
    const { run, epoch, wakeAt } = entry;
    const next = { ...entry, epoch: epoch + 1, holder: null };
    const query = this.#deps.store.db
      .updateTable('run')
      .set({ epoch: next.epoch, holder: null, wakeAt })
      .where('run', '=', run)
      .where('epoch', '=', epoch);
    try {
      await this.#deps.store.write([{ query, expectRows: 1 }]);
    } catch (error) {
      // Whether it came to that is read again: if not, its owner is still the owner.
      this.#active.forget(run);
      throw error;
    }
    this.#active.release(run);
    return this.#keep({ entry: next, head });
  }

  #keep(active: ActiveRun): RunEntry {
    return this.#tell(this.#active.keep(active).entry);
  }

  #tell(entry: RunEntry): RunEntry {
    this.#deps.onChanged(entry);
    return entry;
  }

  /** What lost a race for the receipt chain is done again, on what the store holds. */
  async #retry<T>(run: string, attempt: (active: ActiveRun) => Promise<T>): Promise<T> {
    for (let count = 1; ; count++) {
      const active = await this.#active.load(run);
      try {
        return await attempt(active);
      } catch (error) {
        this.#active.forget(run);
        this.#deps.receipts.forget();
        if (!isStoreConflict(error) || count === JOURNAL_LIMITS.attemptsMax) throw error;
      }
    }
  }

  async #appendOnce(
    active: ActiveRun,
    author: Author,
    bodies: readonly JournalBody[],
  ): Promise<readonly JournalEvent[]> {
    return (await this.#write(active, author, bodies)).events;
  }

  async #write(
    { entry, head }: ActiveRun,
    author: Author,
    bodies: readonly JournalBody[],
  ): Promise<{ readonly next: RunEntry; readonly events: readonly JournalEvent[] }> {
    const { receipts } = this.#deps;
    const isLast = bodies.some(({ type }) => type === 'finished');
    // Whoever fails at the same time forgets it for all.
    while (isLast && !receipts.isKnown) await receipts.refresh();
    const plan = new AppendPlan(this.#deps, { entry, head });
    const stamp = { epoch: author.by === 'runner' ? author.epoch : 0, at: this.#deps.nowMs() };
    const built = bodies.map((body) => {
      const event = head.append(body, stamp);
      plan.add(event);
      return event;
    });
    const next = entryAfter(entry, head);
    // First, so that a stale writer fails before it touches anything.
    const guard = { query: this.#updateRun(next, entry.seq), expectRows: 1 };
    await this.#deps.store.write([guard, ...plan.writes]);
    plan.apply();
    this.#active.confirm(next.run);
    this.#active.keep({ entry: next, head });
    this.#deps.onAppended(next, built, plan.receipt);
    return { next, events: built.map(({ event }) => event) };
  }

  /**
   * The events of an append that was durable before its answer was lost. Throws `E_STALE_EPOCH` when the
   * runner knows another journal than this one.
   */
  async #findRepeated(
    { entry, head }: ActiveRun,
    author: Author,
    bodies: readonly JournalBody[],
  ): Promise<readonly JournalEvent[] | undefined> {
    if (author.by === 'supervisor' || author.after === head.seq) return undefined;
    const { after } = author;
    const events = await this.#deps.reader.listEvents(entry.run, { after, limit: bodies.length });
    const stored = events.map(({ epoch, body }) => ({ epoch, body }));
    const sent = bodies.map((body) => ({ epoch: author.epoch, body }));
    if (canonicalJson(stored) === canonicalJson(sent)) return events;
    throw new HyphaError(
      'E_STALE_EPOCH',
      `${author.runner} knows ${after} events of ${entry.run}, there are ${head.seq}`,
    );
  }

  #updateRun(next: RunEntry, seqBefore: number) {
    return this.#deps.queries.updateRun.with({
      ...next,
      due: dueOf(next),
      problem: next.problem === null ? null : JSON.stringify(next.problem),
      simulated: Number(next.simulated),
      seqBefore,
    });
  }
}

function entryAfter(entry: RunEntry, head: RunHead): RunEntry {
  const { state, steps, startedAt, endedAt, problem, simulated } = head.fold;
  const end = { seq: head.seq, head: head.hash };
  return { ...entry, ...end, state, steps, startedAt, endedAt, problem, simulated };
}
