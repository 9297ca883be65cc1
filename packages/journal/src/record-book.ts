import type { Json } from '@hypha/protocol';
import type { Store, Write } from '@hypha/store';
import type { Selectable } from 'kysely';
import type { JournalTables } from './journal-schema.ts';
import type { ProvisionalState, RecordState, RecordStatus } from './record-swap.ts';

interface Placed {
  readonly realm: string;
  readonly deployment: string;
}

/** A resource this node keeps up, or is to remove, or only lists. */
export interface ResourceEntry extends RecordState, Placed {
  /** Grows with every change of the record. */
  readonly version: number;
}

/** What a step of an uncommitted run declared. */
export interface ProvisionalEntry extends ProvisionalState, Placed {}

export interface DesiredWorld {
  readonly records: readonly ResourceEntry[];
  /** Only the one in force for each rid: that of the newest step. */
  readonly provisional: readonly ProvisionalEntry[];
}

/** Reads and writes of the desired record (design §10). */
export class RecordBook {
  readonly #store: Store<JournalTables>;

  constructor(store: Store<JournalTables>) {
    this.#store = store;
  }

  async listRecords(of?: Placed): Promise<ResourceEntry[]> {
    let query = this.#store.db.selectFrom('record').selectAll();
    if (of !== undefined) {
      query = query.where('realm', '=', of.realm).where('deployment', '=', of.deployment);
    }
    const rows = await query
      .orderBy('realm')
      .orderBy('deployment')
      .orderBy('kind')
      .orderBy('name')
      .execute();
    return rows.map(entryOf);
  }

  /** Every row, oldest first. */
  async listProvisional(of?: Placed): Promise<ProvisionalEntry[]> {
    let query = this.#store.db.selectFrom('provisional').selectAll();
    if (of !== undefined) {
      query = query.where('realm', '=', of.realm).where('deployment', '=', of.deployment);
    }
    const rows = await query.orderBy('position').orderBy('step').execute();
    return rows.map(provisionalOf);
  }

  async readWorld(): Promise<DesiredWorld> {
    const [records, steps] = await Promise.all([this.listRecords(), this.listProvisional()]);
    return { records, provisional: [...new Map(steps.map((step) => [step.rid, step])).values()] };
  }

  /**
   * Forgets a record whose resource is gone. False when the record changed meanwhile: then it stands.
   * If we die between the removal and this, the removal is tried again: it is idempotent.
   */
  async dropRecord(entry: ResourceEntry): Promise<boolean> {
    const query = this.#store.db
      .deleteFrom('record')
      .where('rid', '=', entry.rid)
      .where('version', '=', entry.version)
      .where('status', '=', 'removing');
    const [result] = await this.#store.write([{ query }]);
    return result?.rowsAffected === 1;
  }

  /** What a replace had parked is gone. */
  async markSettled(entry: ResourceEntry): Promise<void> {
    const query = this.#store.db
      .updateTable('record')
      .set({ unsettled: 0 })
      .where('rid', '=', entry.rid)
      .where('version', '=', entry.version);
    await this.#store.write([{ query }]);
  }

  upsertRecord(record: RecordState, of: Placed): Write {
    const values = {
      realm: of.realm,
      deployment: of.deployment,
      kind: record.kind,
      name: record.name,
      spec: JSON.stringify(record.spec),
      specHash: record.specHash,
      status: record.status,
      createdBy: record.createdBy,
      lastOp: record.lastOp,
      deleteData: Number(record.deleteData),
      unsettled: Number(record.unsettled),
    };
    return {
      query: this.#store.db
        .insertInto('record')
        .values({ rid: record.rid, ...values, version: 1 })
        .onConflict((conflict) =>
          conflict
            .column('rid')
            .doUpdateSet((eb) => ({ ...values, version: eb('record.version', '+', 1) })),
        ),
    };
  }
}

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
