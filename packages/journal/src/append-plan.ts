import {
  type BodyOf,
  type DesiredResource,
  type Envelope,
  HyphaError,
  type JournalEvent,
  PlanDocument,
  parseJsonAs,
  type ReceiptPayload,
  type ResourceLimits,
} from '@hypha/protocol';
import type { Store, Write } from '@hypha/store';
import type { JournalQueries } from './journal-queries.ts';
import type { JournalTables } from './journal-schema.ts';
import type { ReceiptChain } from './receipt-chain.ts';
import type { PlannedChange, ProvisionalEntry, RecordBook } from './record-book.ts';
import { planCommit, planUnwind, type RecordState } from './record-swap.ts';
import {
  largestOf,
  NO_RESOURCES,
  type Reservation,
  type ReservationBook,
  sumOf,
} from './reservation-book.ts';
import type { RunEntry } from './run-entry.ts';
import type { BuiltEvent, RunHead, UndoneStep } from './run-head.ts';

export interface PlanDeps {
  readonly store: Store<JournalTables>;
  readonly queries: JournalQueries;
  readonly records: RecordBook;
  readonly reservations: ReservationBook;
  readonly receipts: ReceiptChain;
  readonly node: string;
  readonly authoritySeq: () => number;
  /** What a resource takes of its deployment's ceiling; null when that cannot be said. */
  readonly useOf: (resource: DesiredResource) => ResourceLimits | null;
}

/**
 * What one append adds to the store besides the run's own row, and to memory once that is durable. Events of
 * one append build on each other: a commit sees the steps before it.
 */
export class AppendPlan {
  readonly writes: Write[] = [];
  readonly #deps: PlanDeps;
  readonly #entry: RunEntry;
  readonly #head: RunHead;
  readonly #applied: (() => void)[] = [];
  // step of this run → what this append makes of it; null for dropped
  readonly #changedSteps = new Map<number, ProvisionalEntry | null>();
  // steps of kept runs that this append drops
  readonly #undoneKept = new Set<string>();
  #receipt: Envelope | undefined;

  constructor(deps: PlanDeps, of: { readonly entry: RunEntry; readonly head: RunHead }) {
    this.#deps = deps;
    this.#entry = of.entry;
    this.#head = of.head;
  }

  /** Of the run, once an event of this append has ended it. */
  get receipt(): Envelope | undefined {
    return this.#receipt;
  }

  /** After the write: memory follows the store. */
  apply(): void {
    for (const apply of this.#applied) apply();
  }

  add({ event, text }: BuiltEvent): void {
    const { run, seq, body } = event;
    this.writes.push({ query: this.#deps.queries.insertEvent.with({ run, seq, body: text }) });
    if (body.type === 'step-intent') this.#declare(body);
    if (body.type === 'step-result') this.#settle(body);
    if (body.type === 'undo-result' && body.leftover === null) this.#undeclare(body.step);
    if (body.type === 'committed') this.#commit(body);
    if (body.type === 'finished') this.#finish(event, body);
  }

  get #db() {
    return this.#deps.store.db;
  }

  #take({ writes, apply }: PlannedChange): void {
    this.writes.push(...writes);
    this.#applied.push(apply);
  }

  #declare({ step, action, desired }: BodyOf<'step-intent'>): void {
    if (desired === null) return;
    this.#demandDeclarer();
    const { run, position, realm, deployment } = this.#entry;
    const place = { run, position, step, realm, deployment };
    this.#putStep({ ...desired, ...place, action, settled: false });
  }

  #settle(body: BodyOf<'step-result'>): void {
    const found = this.#findStep(body.step);
    if (found !== undefined) this.#putStep({ ...found, settled: true });
    const undone = this.#head.findUndone(body);
    if (undone !== undefined) this.#undoKept(undone);
  }

  /**
   * A step of a kept run is undone in the world, however the run ends that undid it: it leaves the record with
   * the outcome that says so, so that nobody brings it back.
   */
  #undoKept({ run, step }: UndoneStep): void {
    const { realm, deployment } = this.#entry;
    const query = this.#db
      .insertInto('undone')
      .columns(['run', 'step'])
      .expression((build) =>
        build
          .selectFrom('run')
          .select([build.ref('run').as('run'), build.lit(step).as('step')])
          .where('run', '=', run)
          .where('realm', '=', realm)
          .where('deployment', '=', deployment),
      )
      .onConflict((known) => known.doNothing());
    this.writes.push({ query });
    const key = keyOf({ run, step });
    const found = this.#deps.records.findStep({ run, realm, deployment }, step);
    if (found === undefined || this.#undoneKept.has(key)) return;
    this.#undoneKept.add(key);
    this.#dropSteps([found]);
    if (this.#listSteps().length === 0) this.#release({ realm, deployment, source: 'kept' });
  }

  #undeclare(step: number): void {
    const found = this.#findStep(step);
    if (found !== undefined) this.#dropSteps([found]);
  }

  #findStep(step: number): ProvisionalEntry | undefined {
    const changed = this.#changedSteps.get(step);
    if (changed !== undefined) return changed ?? undefined;
    return this.#deps.records.findStep(this.#entry, step);
  }

  #putStep(entry: ProvisionalEntry): void {
    this.#changedSteps.set(entry.step, entry);
    this.#take(this.#deps.records.planStep(entry));
  }

  #dropSteps(steps: readonly ProvisionalEntry[]): void {
    const own = steps.filter(({ run }) => run === this.#entry.run);
    for (const { step } of own) this.#changedSteps.set(step, null);
    this.#take(this.#deps.records.planDropSteps(steps));
  }

  /** Of every run of the deployment, oldest first, as this append leaves them. */
  #listSteps(): ProvisionalEntry[] {
    const { run } = this.#entry;
    const stored = this.#deps.records.listProvisional(this.#entry);
    const unchanged = stored.filter(
      (each) =>
        (each.run !== run || !this.#changedSteps.has(each.step)) &&
        !this.#undoneKept.has(keyOf(each)),
    );
    const changed = [...this.#changedSteps.values()].filter((each) => each !== null);
    return [...unchanged, ...changed].sort((a, b) => a.position - b.position || a.step - b.step);
  }

  #putRecords(records: readonly RecordState[]): void {
    for (const record of records) this.#take(this.#deps.records.planRecord(record, this.#entry));
  }

  #commit(body: BodyOf<'committed'>): void {
    const { run, mode, realm, deployment } = this.#entry;
    if (mode === 'apply' || mode === 'destroy') {
      this.#swap(body);
      return;
    }
    if (body.desired.length > 0) this.#demandDeclarer();
    if (mode === 'plan') this.#keepPlan(body);
    this.#release({ realm, deployment, source: run });
  }

  /** Throws `E_CONFLICT` for what only looks, or works on what is there. */
  #demandDeclarer(): void {
    const { run, mode } = this.#entry;
    if (mode === 'apply' || mode === 'destroy') return;
    throw new HyphaError('E_CONFLICT', `${run} is a ${mode}: it declares nothing`);
  }

  #keepPlan({ output }: BodyOf<'committed'>): void {
    const { run } = this.#entry;
    const what = `the plan of ${run}`;
    const plan = parseJsonAs(PlanDocument, output, { code: 'E_CONFLICT', what });
    const { hash } = plan;
    if (plan.run !== run || hash === undefined) {
      throw new HyphaError('E_CONFLICT', `${what} has no hash, or is of ${plan.run}`);
    }
    const values = { run, hash, document: output };
    this.writes.push({ query: this.#db.insertInto('plan').values(values) });
  }

  #swap({ desired }: BodyOf<'committed'>): void {
    const { run, realm, deployment, deleteData } = this.#entry;
    const records = this.#deps.records.listRecords(this.#entry);
    const steps = this.#listSteps();
    const changed = planCommit({ records, provisional: steps }, { run, desired, deleteData });
    this.#putRecords(changed);
    this.#dropSteps(steps);
    const touched = new Set(changed.map(({ rid }) => rid));
    const use = this.#useOf([...changed, ...records.filter(({ rid }) => !touched.has(rid))]);
    const of = { realm, deployment };
    const ceiling = this.#deps.reservations.find({ ...of, source: run }) ?? NO_RESOURCES;
    this.#reserve({ ...of, source: 'committed', limits: use ?? ceiling });
    this.#release({ ...of, source: 'kept' });
    this.#release({ ...of, source: run });
  }

  /** Null when the use of one resource cannot be said. */
  #useOf(records: readonly RecordState[]): ResourceLimits | null {
    const held = records.filter(({ status }) => status !== 'removing');
    const uses = held.map((record) => this.#deps.useOf(record));
    return uses.every((use) => use !== null) ? sumOf(uses) : null;
  }

  #finish(event: JournalEvent, body: BodyOf<'finished'>): void {
    const { receipt, writes } = this.#deps.receipts.sign(this.#receiptOf(event, body));
    this.#receipt = receipt.envelope;
    this.writes.push(...writes);
    if (body.state === 'succeeded') return;
    const { run, realm, deployment, keep } = this.#entry;
    const of = { realm, deployment };
    // What it found as it should be is nothing that it keeps: the record has that, and it is looked after.
    if (keep) this.#dropSteps(this.#listSteps().filter((step) => step.run === run && isNoOp(step)));
    const steps = this.#listSteps();
    const left = steps.filter((step) => step.run === run);
    if (keep && left.length > 0) {
      const { reservations } = this.#deps;
      const ceilings = [run, 'kept'].map((source) => reservations.find({ ...of, source }));
      const limits = largestOf(ceilings.filter((each) => each !== undefined));
      this.#reserve({ ...of, source: 'kept', limits });
    } else if (left.length > 0) {
      const records = this.#deps.records.listRecords(this.#entry);
      this.#putRecords(planUnwind({ records, provisional: steps }, run));
      this.#dropSteps(left);
    }
    this.#release({ ...of, source: run });
  }

  #receiptOf(event: JournalEvent, body: BodyOf<'finished'>): Omit<ReceiptPayload, 'seq' | 'prev'> {
    const { run, digest, realm, deployment, generation, mode, cancelRequestedAt } = this.#entry;
    const { fold, outputSha256 } = this.#head;
    return {
      v: 1,
      run,
      envelopeDigest: digest,
      node: this.#deps.node,
      realm,
      deployment,
      generation,
      mode,
      state: body.state,
      ...(fold.problem === null ? {} : { code: fold.problem.code }),
      startedAt: fold.startedAt,
      endedAt: event.at,
      steps: fold.steps,
      journalHead: event.hash,
      ...(outputSha256 === null ? {} : { outputSha256 }),
      undone: body.undone,
      leftovers: body.leftovers,
      ...(cancelRequestedAt === null ? {} : { cancelRequestedAt }),
      authoritySeq: this.#deps.authoritySeq(),
    };
  }

  #reserve(reservation: Reservation): void {
    const { realm, deployment, source, limits } = reservation;
    const row = { realm, deployment, source, ...limits };
    const query = this.#deps.queries.putReservation.with(row);
    this.#take({
      writes: [{ query }],
      apply: () => this.#deps.reservations.set(reservation),
    });
  }

  #release(of: Omit<Reservation, 'limits'>): void {
    // Memory holds what the store holds.
    if (this.#deps.reservations.find(of) === undefined) return;
    const query = this.#deps.queries.dropReservation.with(of);
    this.#take({ writes: [{ query }], apply: () => this.#deps.reservations.drop(of) });
  }
}

const keyOf = ({ run, step }: UndoneStep) => `${run}/${step}`;

const isNoOp = ({ action }: ProvisionalEntry) => action === 'no-op';
