import {
  type BodyOf,
  type DesiredResource,
  HyphaError,
  isTerminal,
  type JournalBody,
  type JournalEvent,
  type ResourceLimits,
  type Signer,
  type Verifier,
} from '@hypha/protocol';
import { openStore, type Store } from '@hypha/store';
import { DeliveryCursors } from './delivery-cursors.ts';
import { MIGRATIONS } from './journal-migrations.ts';
import { prepareQueries } from './journal-queries.ts';
import type { JournalTables } from './journal-schema.ts';
import { JournalSweeper } from './journal-sweeper.ts';
import { KeyedLock } from './keyed-lock.ts';
import { MarkBook } from './mark-book.ts';
import { ReceiptChain } from './receipt-chain.ts';
import { RecordBook } from './record-book.ts';
import { ReplayHorizon } from './replay-horizon.ts';
import { ReservationBook } from './reservation-book.ts';
import { type Admission, type Admitted, RunAdmission } from './run-admission.ts';
import { type Cancellation, type Cancelled, RunCancellation } from './run-cancellation.ts';
import type { RunEntry } from './run-entry.ts';
import type { BuiltEvent } from './run-head.ts';
import { RunLanes } from './run-lanes.ts';
import { RunMemory } from './run-memory.ts';
import { RunReader } from './run-reader.ts';
import type { Author, RunnerAuthor } from './run-standing.ts';
import { RunWriter } from './run-writer.ts';
import { SecretBook } from './secret-book.ts';
import { TombstoneBook } from './tombstone-book.ts';

export interface JournalOptions {
  readonly file: string;
  /** In place of one on `file`: a simulation brings its own. Closed with the journal. */
  readonly openStore?: typeof openStore<JournalTables>;
  readonly node: string;
  /** Signs receipts. */
  readonly signer: Signer;
  readonly verifier: Verifier;
  /** Wall clock, epoch milliseconds. */
  readonly nowMs: () => number;
  /** Newest authority update this node knows: goes into receipts. */
  readonly authoritySeq: () => number;
  /** What a resource takes of its deployment's ceiling; null when that cannot be said. */
  readonly useOf: (resource: DesiredResource) => ResourceLimits | null;
}

/** Told after a change is durable, in order for each run. Must not throw. */
export type JournalListener = (entry: RunEntry, events: readonly JournalEvent[]) => void;

/** A run that has the turn of its deployment, or waits for it. */
export interface Lane {
  readonly realm: string;
  readonly deployment: string;
  /** Unfinished runs, oldest first: the first has the turn. */
  readonly runs: readonly RunEntry[];
}

/**
 * This node's memory: runs and their events, what may not come back, generations, the desired record,
 * reservations, receipts, and how far others have been told. One process owns it (design §7). Everything
 * a call promises is on disk when the call resolves.
 */
export class Journal {
  readonly records: RecordBook;
  readonly runs: RunReader;
  readonly cursors: DeliveryCursors;
  readonly sweeper: JournalSweeper;
  readonly horizon: ReplayHorizon;
  readonly secrets: SecretBook;
  readonly #store: Store<JournalTables>;
  readonly #admission: RunAdmission;
  readonly #writer: RunWriter;
  readonly #cancellation: RunCancellation;
  readonly #reservations: ReservationBook;
  readonly #lanes: RunLanes;
  readonly #memory: RunMemory;
  readonly #listeners = new Set<JournalListener>();

  /** Use `openJournal`. */
  constructor(
    store: Store<JournalTables>,
    stored: {
      horizon: ReplayHorizon;
      tombstones: TombstoneBook;
      reservations: ReservationBook;
      records: RecordBook;
      marks: MarkBook;
      unfinished: readonly RunEntry[];
    },
    options: JournalOptions,
  ) {
    const { node, signer, verifier, nowMs, authoritySeq, useOf } = options;
    const { horizon, tombstones, reservations, records, marks } = stored;
    this.#store = store;
    this.#reservations = reservations;
    this.#lanes = new RunLanes(stored.unfinished);
    this.records = records;
    const memory = new RunMemory();
    this.#memory = memory;
    this.runs = new RunReader(store, memory);
    this.cursors = new DeliveryCursors(store);
    this.sweeper = new JournalSweeper(store, memory);
    this.horizon = horizon;
    this.secrets = new SecretBook(store, memory, nowMs);
    const { runs: reader } = this;
    const arrivals = new KeyedLock();
    const receipts = new ReceiptChain({ store, signer, verifier });
    const queries = prepareQueries(store);
    const plan = { store, queries, records, reservations, receipts, node, authoritySeq, useOf };
    this.#admission = new RunAdmission({
      store,
      reader,
      plan,
      tombstones,
      arrivals,
      reservations,
      marks,
      secrets: this.secrets,
      verifier,
      node,
      horizon,
      nowMs,
      unfinished: () => this.#lanes.size,
      onAdmitted: (entry, { envelope, secrets = [] }, { head, events, receipt }) => {
        // Versions of kept ones are found by the write.
        const given = secrets.length === 0 ? {} : undefined;
        memory.add(entry, envelope, { events, given, receipt });
        this.#writer.adopt(entry, head);
        this.#announce(entry, events);
      },
    });
    this.#writer = new RunWriter({
      ...plan,
      // What failed is read as the store has it.
      reader: new RunReader(store),
      verifier,
      nowMs,
      onAppended: (entry, events, receipt) => {
        memory.append(entry, events, receipt);
        this.#announce(entry, events);
      },
      onChanged: (entry) => this.#track(entry),
    });
    this.#cancellation = new RunCancellation({
      reader,
      writer: this.#writer,
      tombstones,
      arrivals,
    });
  }

  /**
   * What was cancelled before it came is accepted and ended at once. Throws `E_EXPIRED`, `E_REPLAY`,
   * `E_SUPERSEDED`, `E_CONFLICT`, `E_CAPACITY`, `E_SECRET`, `E_RATE`.
   */
  async admit(admission: Admission): Promise<Admitted> {
    return await this.#admission.admit(admission);
  }

  /**
   * Durable when it resolves: the run begins no further step and does not commit (G6). One that no runner has
   * begun is over then, with its receipt; listeners are told. The cancel of what is not here is kept until
   * that comes. Throws `E_SCOPE`, `E_TOO_LATE`, `E_RATE`.
   */
  async cancel(cancellation: Cancellation): Promise<Cancelled> {
    return await this.#cancellation.cancel(cancellation);
  }

  /** Throws `E_STALE_EPOCH`, also when the run has not the turn of its deployment. */
  async claim(
    run: string,
    owner: { runner: string; epoch: number; bootId: string },
  ): Promise<RunEntry> {
    if (!this.#lanes.isFirst(run)) {
      throw new HyphaError('E_STALE_EPOCH', `${run} has not the turn of its deployment`, {
        hint: 'a queue job named a run that is finished, unknown or waiting',
      });
    }
    return await this.#writer.claim(run, owner);
  }

  /**
   * Takes back a claim that its runner was never told of: the epoch is anybody's again. Nothing happens once
   * something was written under it.
   */
  async unclaim(run: string, owner: { runner: string; epoch: number }): Promise<void> {
    await this.#writer.unclaim(run, owner);
  }

  /** A runner that comes back says what it holds. Throws `E_STALE_EPOCH` when that is no longer its own. */
  async reattach(
    run: string,
    owner: { runner: string; epoch: number; bootId: string },
  ): Promise<RunEntry> {
    return await this.#writer.reattach(run, owner);
  }

  /** What an earlier cancel of this target by these signers came to; undefined when there was none. */
  async findCancelled(cancellation: Cancellation): Promise<Cancelled | undefined> {
    return await this.#cancellation.find(cancellation);
  }

  /**
   * All or none. Throws `E_STALE_EPOCH`, `E_CONFLICT` for events that may not follow, and `E_CANCELLED` for the
   * intent or the commit of a cancelled run.
   */
  async append(
    run: string,
    author: Author,
    bodies: readonly JournalBody[],
  ): Promise<readonly JournalEvent[]> {
    return await this.#writer.append(run, author, bodies);
  }

  /** Ends a run that no runner has begun. False when one has, or when it ended by itself. */
  async finishUnclaimed(run: string, body: BodyOf<'finished'>): Promise<boolean> {
    return await this.#writer.finishUnclaimed(run, body);
  }

  /**
   * The next epoch, owned by nobody. Call only once everything the owner started is dead. Nothing changes when
   * `runner` is named and is not the owner any more.
   */
  async takeOver(run: string, runner?: string): Promise<RunEntry> {
    return await this.#writer.takeOver(run, runner);
  }

  /**
   * A runner lets go of a run that only waits: the next epoch, owned by nobody, with `wakeAt`, epoch
   * milliseconds; null when it is cancelled. Its claim clears that. Throws `E_STALE_EPOCH`, and `E_CONFLICT`
   * for a run that is not running.
   */
  async park(run: string, author: RunnerAuthor, wakeAtMs: number): Promise<RunEntry> {
    return await this.#writer.park(run, author, wakeAtMs);
  }

  /** An unfinished run as it is now. */
  findUnfinished(run: string): RunEntry | undefined {
    return this.#lanes.find(run);
  }

  /** Every deployment with unfinished runs. */
  listLanes(): readonly Lane[] {
    return this.#lanes.list();
  }

  /** What is reserved by all deployments together. */
  reserved(): ResourceLimits {
    return this.#reservations.total();
  }

  /** Returns how to stop listening. */
  subscribe(listener: JournalListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Proves that the store answers. */
  async ping(): Promise<void> {
    await this.#store.db.selectFrom('meta').select('id').executeTakeFirstOrThrow();
  }

  async close(): Promise<void> {
    this.#listeners.clear();
    await this.#store.close();
  }

  #announce(entry: RunEntry, built: readonly BuiltEvent[]): void {
    this.#track(entry);
    const events = built.map(({ event }) => event);
    for (const listener of this.#listeners) listener(entry, events);
  }

  #track(entry: RunEntry): void {
    this.#memory.update(entry);
    if (isTerminal(entry.state)) this.#lanes.remove(entry);
    else this.#lanes.update(entry);
  }
}

/** Opens or begins the journal. A new one remembers nothing, so it refuses what was signed before it. */
export async function openJournal(options: JournalOptions): Promise<Journal> {
  const open = options.openStore ?? openStore<JournalTables>;
  const store = await open({ file: options.file, migrations: MIGRATIONS });
  try {
    const begin = store.db
      .insertInto('meta')
      .values({
        ...{ id: 1, receiptSeq: 0, receiptDigest: null },
        ...{ createdAt: options.nowMs(), dated: 0 },
        ...{ forgottenSeconds: 0, forgottenCancelSeconds: 0 },
      })
      .onConflict((row) => row.column('id').doNothing());
    await store.write([{ query: begin }]);
    const tombstones = await TombstoneBook.open(store);
    const [horizon, reservations, records, marks, unfinished] = await Promise.all([
      ReplayHorizon.open(store, tombstones),
      store.db.selectFrom('reservation').selectAll().execute(),
      RecordBook.open(store),
      MarkBook.open(store),
      new RunReader(store).listUnfinished(),
    ]);
    const reserved = reservations.map(({ realm, deployment, source, ...limits }) => ({
      realm,
      deployment,
      source,
      limits,
    }));
    const stored = { horizon, tombstones, records, marks, unfinished };
    return new Journal(store, { ...stored, reservations: new ReservationBook(reserved) }, options);
  } catch (error) {
    await store.close();
    throw error;
  }
}
