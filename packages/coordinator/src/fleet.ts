import { fromBase64, HyphaError, type NodeView } from '@hypha/protocol';
import type { Store, Write } from '@hypha/store';
import type { AuthorityMirror } from './authority-mirror.ts';
import type { ChangeFeed } from './change-feed.ts';
import type { Clock } from './clock.ts';
import { COORDINATOR_LIMITS as LIMITS } from './limits.ts';
import { nodeState } from './presence.ts';
import type { CoordinatorDb } from './schema.ts';

/** Rows written to the store at once. */
const WRITES_AT_ONCE = 200;

/** The nodes: the ledger's records as last read, with what is seen here of cordons and open inboxes. */
export class Fleet {
  readonly #deps: FleetDeps;
  readonly #startedAt: number;
  /** node id → the ledger's record; what the `nodes` table holds. */
  readonly #records: Map<string, NodeView>;
  readonly #cordoned: Set<string>;
  /** Nodes whose inbox is open here. */
  readonly #connected = new Set<string>();
  /** node id → when its inbox closed. */
  readonly #leftAt = new Map<string, number>();
  /** node id → since when the ledger hears nothing of it, by our clock. */
  readonly #silentSince = new Map<string, number>();
  /** node id → state last told to readers of events. */
  readonly #told = new Map<string, NodeView['state']>();

  private constructor(deps: FleetDeps, records: readonly NodeView[], cordoned: readonly string[]) {
    this.#deps = deps;
    this.#startedAt = deps.clock.nowMs();
    this.#records = new Map(records.map((view) => [view.id, view]));
    this.#cordoned = new Set(cordoned);
    for (const view of this.list()) this.#told.set(view.id, view.state);
  }

  static async open(deps: FleetDeps): Promise<Fleet> {
    const records = await deps.store.db.selectFrom('nodes').select('view').execute();
    const cordons = await deps.store.db.selectFrom('cordons').select('node').execute();
    return new Fleet(
      deps,
      records.map(({ view }) => JSON.parse(view) as NodeView),
      cordons.map(({ node }) => node),
    );
  }

  list(): readonly NodeView[] {
    return [...this.#records.values()].map((record) => this.#viewOf(record));
  }

  find(id: string): NodeView | undefined {
    const record = this.#records.get(id);
    return record === undefined ? undefined : this.#viewOf(record);
  }

  /** Node id → ids that the same machine had before, with other keys. */
  predecessors(): ReadonlyMap<string, readonly string[]> {
    const found = new Map<string, string[]>();
    for (const { id, replacedBy } of this.#records.values()) {
      // Bounded, should a ledger make them replace each other.
      let next = replacedBy;
      for (let step = 0; next !== undefined && step < LIMITS.replacementsMax; step++) {
        found.set(next, [...(found.get(next) ?? []), id]);
        next = this.#records.get(next)?.replacedBy;
      }
    }
    return found;
  }

  /** Throws `E_NOT_FOUND`. */
  get(id: string): NodeView {
    const view = this.find(id);
    if (view !== undefined) return view;
    throw new HyphaError('E_NOT_FOUND', `node ${id} is not known`, {
      hint: 'list what there is: hypha node list',
    });
  }

  /** An enrolled node that may still act. */
  findActing(id: string): NodeView | undefined {
    const view = this.find(id);
    const mayAct = view !== undefined && view.state !== 'revoked' && view.state !== 'pending';
    return mayAct ? view : undefined;
  }

  /** Raw key of `findActing`. */
  findKey(id: string): Uint8Array | undefined {
    const view = this.findActing(id);
    return view === undefined ? undefined : fromBase64(view.publicKey);
  }

  /** Keeps what the ledger says now; nodes it does not name stay as they were. Durable when it resolves. */
  async learn(records: readonly NodeView[]): Promise<void> {
    const changed = records.filter(
      (record) => JSON.stringify(this.#records.get(record.id)) !== JSON.stringify(record),
    );
    const { store } = this.#deps;
    for (let at = 0; at < changed.length; at += WRITES_AT_ONCE) {
      await store.write(
        changed.slice(at, at + WRITES_AT_ONCE).flatMap((record) => [
          {
            query: store.db
              .insertInto('nodes')
              .values({ id: record.id, view: JSON.stringify(record) })
              .onConflict((conflict) =>
                conflict.column('id').doUpdateSet({ view: JSON.stringify(record) }),
              ),
          },
          ...this.#cordonWrites(record),
        ]),
      );
    }
    for (const record of changed) {
      this.#records.set(record.id, record);
      const { id, replacedBy } = record;
      if (replacedBy !== undefined && this.#cordoned.delete(id)) this.#cordoned.add(replacedBy);
    }
    for (const { id, state } of records) {
      if (state !== 'unreachable') this.#silentSince.delete(id);
      else if (!this.#silentSince.has(id)) this.#silentSince.set(id, this.#deps.clock.nowMs());
    }
  }

  /** A cordon is on the machine, and a new key does not take it off. */
  #cordonWrites({ id, replacedBy }: NodeView): Write[] {
    if (replacedBy === undefined || !this.#cordoned.has(id)) return [];
    const { db } = this.#deps.store;
    return [
      { query: db.deleteFrom('cordons').where('node', '=', replacedBy) },
      { query: db.updateTable('cordons').set({ node: replacedBy }).where('node', '=', id) },
    ];
  }

  enter(id: string): void {
    this.#connected.add(id);
  }

  leave(id: string): void {
    this.#connected.delete(id);
    this.#leftAt.set(id, this.#deps.clock.nowMs());
  }

  /** Keeps new work off the node. Durable when it resolves; again changes nothing. */
  async cordon(id: string, by: string | undefined): Promise<NodeView> {
    this.get(id);
    const { store, clock } = this.#deps;
    await store.write([
      {
        query: store.db
          .insertInto('cordons')
          .values({ node: id, at: clock.nowMs(), by_key: by ?? null })
          .onConflict((conflict) => conflict.column('node').doNothing()),
      },
    ]);
    this.#cordoned.add(id);
    await this.tellChanges();
    return this.get(id);
  }

  async uncordon(id: string): Promise<NodeView> {
    this.get(id);
    const { store } = this.#deps;
    await store.write([{ query: store.db.deleteFrom('cordons').where('node', '=', id) }]);
    this.#cordoned.delete(id);
    await this.tellChanges();
    return this.get(id);
  }

  /** Writes a change for every node whose state is no longer the one told last. */
  async tellChanges(): Promise<void> {
    const { store, changes, clock } = this.#deps;
    const changed = this.list().filter(({ id, state }) => this.#told.get(id) !== state);
    if (changed.length === 0) return;
    for (const { id, state } of changed) this.#told.set(id, state);
    await store.write(changed.map((view) => changes.record({ type: 'node', view }, clock.nowMs())));
    changes.ring();
  }

  #viewOf(record: NodeView): NodeView {
    const { clock, authority } = this.#deps;
    const nowMs = clock.nowMs();
    const state = nodeState(record.state, {
      revoked: authority.find()?.isNodeRevoked(record.id) === true,
      cordoned: this.#cordoned.has(record.id),
      connected: this.#connected.has(record.id),
      awayMs: nowMs - (this.#leftAt.get(record.id) ?? this.#startedAt),
      silentMs: nowMs - (this.#silentSince.get(record.id) ?? nowMs),
    });
    return { ...record, state };
  }
}

export interface FleetDeps {
  readonly store: Store<CoordinatorDb>;
  readonly authority: AuthorityMirror;
  readonly changes: ChangeFeed;
  readonly clock: Clock;
}
