import type { Json } from '@hypha/protocol';
import { PreparedQuery, rowOf, type Store, type Write } from '@hypha/store';
import type { Selectable } from 'kysely';
import type { JournalTables } from './journal-schema.ts';
import type { ProvisionalState, RecordState, RecordStatus } from './record-swap.ts';

export interface DeploymentName {
  readonly realm: string;
  readonly deployment: string;
}

/** A resource this node keeps up, or is to remove, or only lists. */
export interface ResourceEntry extends RecordState, DeploymentName {
  /** Another for every change of the record. */
  readonly version: number;
}

/** What a step of an uncommitted run declared. */
export interface ProvisionalEntry extends ProvisionalState, DeploymentName {}

export interface DesiredWorld {
  readonly records: readonly ResourceEntry[];
  /** Only the one in force for each rid: that of the newest step. */
  readonly provisional: readonly ProvisionalEntry[];
}

const SHARED_COLUMNS = ['rid', 'realm', 'deployment', 'kind', 'name', 'spec', 'specHash'] as const;

const RECORD_COLUMNS = [
  ...SHARED_COLUMNS,
  'status',
  'createdBy',
  'lastOp',
  'deleteData',
  'unsettled',
  'version',
] as const;

const STEP_COLUMNS = [...SHARED_COLUMNS, 'run', 'position', 'step', 'action', 'settled'] as const;

/** Writes to go with others in one list, and what memory does once they are durable. */
export interface PlannedChange {
  readonly writes: readonly Write[];
  readonly apply: () => void;
}

/**
 * The desired record (design §10). Its rows are kept in memory too, since nobody else writes them: reading
 * costs nothing, and shows only what is durable.
 */
export class RecordBook {
  readonly #store: Store<JournalTables>;
  readonly #queries: ReturnType<typeof prepareQueries>;
  // deployment → rid → its record
  readonly #records = new Map<string, Map<string, ResourceEntry>>();
  // deployment → run and step → what it declared
  readonly #provisional = new Map<string, Map<string, ProvisionalEntry>>();
  #lastVersion = 0;

  private constructor(store: Store<JournalTables>) {
    this.#store = store;
    this.#queries = prepareQueries(store);
  }

  static async open(store: Store<JournalTables>): Promise<RecordBook> {
    const book = new RecordBook(store);
    const [records, steps] = await Promise.all([
      store.db.selectFrom('record').selectAll().execute(),
      store.db.selectFrom('provisional').selectAll().execute(),
    ]);
    for (const row of records) {
      book.#putRecord(entryOf(row));
      book.#lastVersion = Math.max(book.#lastVersion, row.version);
    }
    for (const row of steps) book.#putStep(provisionalOf(row));
    return book;
  }

  /** By deployment, kind and name. */
  listRecords(of?: DeploymentName): ResourceEntry[] {
    const deployments =
      of === undefined ? [...this.#records.values()] : [this.#records.get(keyOf(of))];
    return deployments
      .flatMap((records) => [...(records?.values() ?? [])])
      .sort((a, b) => (pathOf(a) < pathOf(b) ? -1 : 1));
  }

  /** The record as it is now; undefined when that resource is on record no more. */
  findRecord(entry: ResourceEntry): ResourceEntry | undefined {
    return this.#records.get(keyOf(entry))?.get(entry.rid);
  }

  /** Every step, oldest first. */
  listProvisional(of?: DeploymentName): ProvisionalEntry[] {
    const deployments =
      of === undefined ? [...this.#provisional.values()] : [this.#provisional.get(keyOf(of))];
    return deployments
      .flatMap((steps) => [...(steps?.values() ?? [])])
      .sort((a, b) => a.position - b.position || a.step - b.step);
  }

  findStep(of: DeploymentName & { readonly run: string }, step: number) {
    return this.#provisional.get(keyOf(of))?.get(stepKey(of.run, step));
  }

  readWorld(): DesiredWorld {
    const steps = this.listProvisional().map((step) => [step.rid, step] as const);
    return { records: this.listRecords(), provisional: [...new Map(steps).values()] };
  }

  /**
   * Forgets a record whose resource is gone. False when the record changed meanwhile: then it stands.
   * If we die between the removal and this, the removal is tried again: it is idempotent.
   */
  async dropRecord(entry: ResourceEntry): Promise<boolean> {
    const { rid, version } = entry;
    const query = this.#store.db
      .deleteFrom('record')
      .where('rid', '=', rid)
      .where('version', '=', version)
      .where('status', '=', 'removing');
    const [result] = await this.#store.write([{ query }]);
    if (result?.rowsAffected !== 1) return false;
    const records = this.#records.get(keyOf(entry));
    records?.delete(rid);
    if (records?.size === 0) this.#records.delete(keyOf(entry));
    return true;
  }

  /** What a replace had parked is gone. */
  async markSettled(entry: ResourceEntry): Promise<void> {
    const { rid, version } = entry;
    const query = this.#store.db
      .updateTable('record')
      .set({ unsettled: 0 })
      .where('rid', '=', rid)
      .where('version', '=', version);
    await this.#store.write([{ query }]);
    const now = this.findRecord(entry);
    if (now?.version === version) this.#putRecord({ ...now, unsettled: false });
  }

  planRecord(record: RecordState, { realm, deployment }: DeploymentName): PlannedChange {
    const entry = { ...record, realm, deployment, version: ++this.#lastVersion };
    const query = this.#queries.putRecord.with({
      ...entry,
      spec: JSON.stringify(record.spec),
      deleteData: Number(record.deleteData),
      unsettled: Number(record.unsettled),
    });
    return { writes: [{ query }], apply: () => this.#putRecord(entry) };
  }

  planStep(entry: ProvisionalEntry): PlannedChange {
    const spec = JSON.stringify(entry.spec);
    const query = this.#queries.putStep.with({ ...entry, spec, settled: Number(entry.settled) });
    return { writes: [{ query }], apply: () => this.#putStep(entry) };
  }

  planDropSteps(steps: readonly ProvisionalEntry[]): PlannedChange {
    return {
      writes: steps.map(({ run, step }) => ({
        query: this.#queries.dropStep.with({ run, step }),
      })),
      apply: () => {
        for (const entry of steps) this.#dropStep(entry);
      },
    };
  }

  #putRecord(entry: ResourceEntry): void {
    const key = keyOf(entry);
    const records = this.#records.get(key) ?? new Map<string, ResourceEntry>();
    this.#records.set(key, records.set(entry.rid, entry));
  }

  #putStep(entry: ProvisionalEntry): void {
    const key = keyOf(entry);
    const steps = this.#provisional.get(key) ?? new Map<string, ProvisionalEntry>();
    this.#provisional.set(key, steps.set(stepKey(entry.run, entry.step), entry));
  }

  #dropStep(entry: ProvisionalEntry): void {
    const steps = this.#provisional.get(keyOf(entry));
    steps?.delete(stepKey(entry.run, entry.step));
    if (steps?.size === 0) this.#provisional.delete(keyOf(entry));
  }
}

function prepareQueries({ db }: Store<JournalTables>) {
  return {
    putRecord: new PreparedQuery<Selectable<JournalTables['record']>>((value) => {
      const row = rowOf(value, RECORD_COLUMNS);
      return db
        .insertInto('record')
        .values(row)
        .onConflict((known) => known.column('rid').doUpdateSet(row));
    }),
    putStep: new PreparedQuery<Selectable<JournalTables['provisional']>>((value) => {
      const row = rowOf(value, STEP_COLUMNS);
      return db
        .insertInto('provisional')
        .values(row)
        .onConflict((known) => known.columns(['run', 'step']).doUpdateSet(row));
    }),
    dropStep: new PreparedQuery<{ run: string; step: number }>((value) =>
      db
        .deleteFrom('provisional')
        .where('run', '=', value('run'))
        .where('step', '=', value('step')),
    ),
  };
}

const keyOf = ({ realm, deployment }: DeploymentName) => `${realm}/${deployment}`;
const stepKey = (run: string, step: number) => `${run}/${step}`;
const pathOf = (entry: ResourceEntry) => `${keyOf(entry)}/${entry.kind}/${entry.name}`;

function entryOf(row: Selectable<JournalTables['record']>): ResourceEntry {
  return {
    ...row,
    // Written by this package from a parsed `DesiredResource`.
    spec: JSON.parse(row.spec) as Json,
    status: row.status as RecordStatus,
    deleteData: row.deleteData === 1,
    unsettled: row.unsettled === 1,
  };
}

function provisionalOf(row: Selectable<JournalTables['provisional']>): ProvisionalEntry {
  return { ...row, spec: JSON.parse(row.spec) as Json, settled: row.settled === 1 };
}
