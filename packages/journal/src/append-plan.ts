import type {
  BodyOf,
  DesiredResource,
  JournalBody,
  JournalEvent,
  ReceiptPayload,
  ResourceLimits,
} from '@hypha/protocol';
import type { Store, Write } from '@hypha/store';
import type { JournalTables } from './journal-schema.ts';
import type { ReceiptChain } from './receipt-chain.ts';
import type { RecordBook } from './record-book.ts';
import { type ProvisionalState, planCommit, planUnwind, type RecordState } from './record-swap.ts';
import { NO_RESOURCES, type Reservation, type ReservationBook, sumOf } from './reservation-book.ts';
import type { RunEntry } from './run-entry.ts';
import type { BuiltEvent, RunHead } from './run-head.ts';

export interface PlanDeps {
  readonly store: Store<JournalTables>;
  readonly records: RecordBook;
  readonly reservations: ReservationBook;
  readonly receipts: ReceiptChain;
  readonly node: string;
  readonly authoritySeq: () => number;
  /** What a resource takes of its deployment's ceiling; null when that cannot be said. */
  readonly useOf: (resource: DesiredResource) => ResourceLimits | null;
}

/** The desired record of the run's deployment, as it is before the append. */
export interface DeploymentWorld {
  readonly records: readonly RecordState[];
  readonly provisional: readonly ProvisionalState[];
}

const EMPTY_WORLD: DeploymentWorld = { records: [], provisional: [] };

/** Bodies whose meaning depends on what the record holds already. */
export function needsWorld(body: JournalBody): boolean {
  return body.type === 'committed' || body.type === 'finished';
}

/** What one append adds to the store besides the run's own row, and to memory once that is durable. */
export class AppendPlan {
  readonly writes: Write[] = [];
  readonly #deps: PlanDeps;
  readonly #entry: RunEntry;
  readonly #head: RunHead;
  readonly #applied: (() => void)[] = [];
  #records: readonly RecordState[];
  #provisional: readonly ProvisionalState[];

  constructor(deps: PlanDeps, of: { entry: RunEntry; head: RunHead; world?: DeploymentWorld }) {
    this.#deps = deps;
    this.#entry = of.entry;
    this.#head = of.head;
    const world = of.world ?? EMPTY_WORLD;
    this.#records = world.records;
    this.#provisional = world.provisional;
  }

  /** After the write: memory follows the store. */
  apply(): void {
    for (const apply of this.#applied) apply();
  }

  add({ event, text }: BuiltEvent): void {
    this.#write(
      this.#db.insertInto('event').values({ run: event.run, seq: event.seq, body: text }),
    );
    const { body } = event;
    if (body.type === 'step-intent') this.#declare(body);
    if (body.type === 'step-result') this.#settle(body.step);
    if (body.type === 'undo-result' && body.leftover === null) this.#undeclare(body.step);
    if (body.type === 'committed') this.#commit(body);
    if (body.type === 'finished') this.#finish(event, body);
  }

  get #db() {
    return this.#deps.store.db;
  }

  #write(query: Write['query']): void {
    this.writes.push({ query });
  }

  #declare({ step, action, desired }: BodyOf<'step-intent'>): void {
    if (desired === null) return;
    const { run, position, realm, deployment } = this.#entry;
    this.#provisional = [
      ...this.#provisional,
      { ...desired, run, position, step, action, settled: false },
    ];
    const values = { ...desired, spec: JSON.stringify(desired.spec), settled: 0 };
    this.#write(
      this.#db
        .insertInto('provisional')
        .values({ ...values, run, position, step, realm, deployment, action }),
    );
  }

  #settle(step: number): void {
    this.#write(
      this.#db
        .updateTable('provisional')
        .set({ settled: 1 })
        .where('run', '=', this.#entry.run)
        .where('step', '=', step),
    );
  }

  #undeclare(step: number): void {
    const { run } = this.#entry;
    this.#provisional = this.#provisional.filter((row) => row.run !== run || row.step !== step);
    this.#write(this.#db.deleteFrom('provisional').where('run', '=', run).where('step', '=', step));
  }

  #commit({ desired }: BodyOf<'committed'>): void {
    const { run, realm, deployment, deleteData } = this.#entry;
    const world = { records: this.#records, provisional: this.#provisional };
    const changed = planCommit(world, { run, desired, deleteData });
    for (const record of changed) {
      this.writes.push(this.#deps.records.upsertRecord(record, this.#entry));
    }
    this.#write(
      this.#db
        .deleteFrom('provisional')
        .where('realm', '=', realm)
        .where('deployment', '=', deployment),
    );
    const touched = new Set(changed.map(({ rid }) => rid));
    this.#records = [...changed, ...this.#records.filter(({ rid }) => !touched.has(rid))];
    this.#provisional = [];
    const of = { realm, deployment };
    const ceiling = this.#deps.reservations.find({ ...of, source: run }) ?? NO_RESOURCES;
    this.#reserve({ ...of, source: 'committed', limits: this.#use() ?? ceiling });
    this.#release({ ...of, source: 'kept' });
    this.#release({ ...of, source: run });
  }

  /** Null when the use of one resource cannot be said. */
  #use(): ResourceLimits | null {
    const held = this.#records.filter(({ status }) => status !== 'removing');
    const uses = held.map((record) => this.#deps.useOf(record));
    return uses.every((use) => use !== null) ? sumOf(uses) : null;
  }

  #finish(event: JournalEvent, body: BodyOf<'finished'>): void {
    const { writes } = this.#deps.receipts.sign(this.#receipt(event, body));
    this.writes.push(...writes);
    if (body.state === 'succeeded') return;
    const { run, realm, deployment, keep } = this.#entry;
    const of = { realm, deployment };
    const left = this.#provisional.some((step) => step.run === run);
    if (keep && left) {
      const limits = this.#deps.reservations.find({ ...of, source: run }) ?? NO_RESOURCES;
      this.#reserve({ ...of, source: 'kept', limits });
    } else if (left) {
      const world = { records: this.#records, provisional: this.#provisional };
      for (const record of planUnwind(world, run)) {
        this.writes.push(this.#deps.records.upsertRecord(record, this.#entry));
      }
      this.#write(this.#db.deleteFrom('provisional').where('run', '=', run));
    }
    this.#release({ ...of, source: run });
  }

  #receipt(event: JournalEvent, body: BodyOf<'finished'>): Omit<ReceiptPayload, 'seq' | 'prev'> {
    const { run, digest, realm, deployment, generation, mode } = this.#entry;
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
      authoritySeq: this.#deps.authoritySeq(),
    };
  }

  #reserve(reservation: Reservation): void {
    const { realm, deployment, source, limits } = reservation;
    this.#write(
      this.#db
        .insertInto('reservation')
        .values({ realm, deployment, source, ...limits })
        .onConflict((row) => row.columns(['realm', 'deployment', 'source']).doUpdateSet(limits)),
    );
    this.#applied.push(() => this.#deps.reservations.set(reservation));
  }

  #release(of: Omit<Reservation, 'limits'>): void {
    this.#write(
      this.#db
        .deleteFrom('reservation')
        .where('realm', '=', of.realm)
        .where('deployment', '=', of.deployment)
        .where('source', '=', of.source),
    );
    this.#applied.push(() => this.#deps.reservations.drop(of));
  }
}
