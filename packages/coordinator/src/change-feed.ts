import type { NodeView, RunView } from '@hypha/protocol';
import type { Store, Write } from '@hypha/store';
import { type Selectable, sql } from 'kysely';
import type { Doorbell } from './doorbell.ts';
import { COORDINATOR_LIMITS as LIMITS } from './limits.ts';
import type { CoordinatorDb } from './schema.ts';

/** One line of `GET /v1/events`: a run or node as it is after it changed. */
export type Change =
  | { readonly type: 'run'; readonly view: RunView }
  | { readonly type: 'node'; readonly view: NodeView };

export const CHANGES_TOPIC = 'changes';

/** Realm of a change of a run; undefined for a node, which is nobody's alone. */
export function realmOf({ type, data }: { type: string; data: string }): string | undefined {
  return type === 'run' ? (JSON.parse(data) as RunView).realm : undefined;
}

/** What changed, in the order it did, so that a reader who was away can go on where it was. */
export class ChangeFeed {
  readonly #store: Store<CoordinatorDb>;
  readonly #bell: Doorbell;

  constructor(deps: { store: Store<CoordinatorDb>; bell: Doorbell }) {
    this.#store = deps.store;
    this.#bell = deps.bell;
  }

  /** To be written with the change itself; `ring` after it is durable. */
  record(change: Change, nowMs: number): Write {
    return {
      query: this.#store.db
        .insertInto('changes')
        .values({ at: nowMs, type: change.type, data: JSON.stringify(change.view) }),
    };
  }

  ring(): void {
    this.#bell.ring(CHANGES_TOPIC);
  }

  /** Id of the newest change, 0 before the first. */
  async head(): Promise<number> {
    const { id } = await this.#store.db
      .selectFrom('changes')
      .select(({ fn }) => fn.max('id').as('id'))
      .executeTakeFirstOrThrow();
    return id ?? 0;
  }

  listAfter(id: number): Promise<Selectable<CoordinatorDb['changes']>[]> {
    return this.#store.db
      .selectFrom('changes')
      .selectAll()
      .where('id', '>', id)
      .orderBy('id')
      .limit(LIMITS.streamReadRows)
      .execute();
  }

  /** Forgets all but the newest. */
  async prune(): Promise<void> {
    await this.#store.write([
      {
        query: this.#store.db
          .deleteFrom('changes')
          .where('id', '<=', sql<number>`(select max(id) from changes) - ${LIMITS.changesKept}`),
      },
    ]);
  }
}
