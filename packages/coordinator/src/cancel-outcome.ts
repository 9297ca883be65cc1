import type { Store, Write } from '@hypha/store';
import type { ChangeFeed } from './change-feed.ts';
import { type RunRow, viewOf } from './run-record.ts';
import type { CancelOutcome, CoordinatorDb } from './schema.ts';

/** One cancel on its way to one node. */
export interface CancelDelivery {
  readonly cancellation: string;
  readonly target: string;
  readonly node: string;
}

/** The message is answered or given up: never sent again. `StoreConflict` when it was already. */
export function outcomeWrite(
  store: Store<CoordinatorDb>,
  { cancellation, node }: CancelDelivery,
  outcome: CancelOutcome,
): Write {
  return {
    query: store.db
      .updateTable('cancel_messages')
      .set({ outcome })
      .where('cancellation', '=', cancellation)
      .where('node', '=', node)
      .where('outcome', 'is', null),
    expectRows: 1,
  };
}

/**
 * What becomes of the target's run when its node will not take the cancel. A submission that was held for it is
 * given up: what was cancelled is not sent any more. A run that its node may have goes on, so the request is
 * taken back, and readers are told. Nothing of this while another cancel of it is on its way or was taken.
 * To be written together with the outcome; `StoreConflict` when another cancel or the run went on meanwhile.
 */
export async function lostCancelWrites(
  deps: { readonly store: Store<CoordinatorDb>; readonly changes: ChangeFeed },
  { cancellation, target, node }: CancelDelivery,
  nowMs: number,
): Promise<readonly Write[]> {
  const { db } = deps.store;
  const standing = db
    .selectFrom('cancel_messages')
    .select('position')
    .where('target', '=', target)
    .where('node', '=', node)
    .where('cancellation', '!=', cancellation)
    .where((where) => where.or([where('outcome', 'is', null), where('outcome', '=', 'taken')]));
  const stands = (await standing.executeTakeFirst()) !== undefined;
  const unchanged: Write = {
    query: db
      .updateTable('cancel_messages')
      .set({ target })
      .where('cancellation', '=', cancellation)
      .where('node', '=', node)
      .where(({ not, exists }) => (stands ? exists(standing) : not(exists(standing)))),
    expectRows: 1,
  };
  if (stands) return [unchanged];
  const row = await db
    .selectFrom('runs')
    .selectAll()
    .where('digest', '=', target)
    .where('node', '=', node)
    .executeTakeFirst();
  if (row === undefined) return [unchanged];
  const held = await db
    .selectFrom('inbox_messages')
    .select('id')
    .where('run', '=', row.run)
    .where('held', '=', 1)
    .executeTakeFirst();
  if (held !== undefined) return [unchanged, giveUpWrite(deps.store, held.id, nowMs)];
  if (row.cancel_requested_at === null || row.guess !== null) return [unchanged];
  return [unchanged, ...cancelMarkWrites(deps, row, null, nowMs)];
}

/**
 * The run shows since when it is to end, or with null that it goes on; readers are told. `StoreConflict` when it went
 * on since `row` was read.
 */
export function cancelMarkWrites(
  { store, changes }: { readonly store: Store<CoordinatorDb>; readonly changes: ChangeFeed },
  row: RunRow,
  requestedAt: number | null,
  nowMs: number,
): readonly Write[] {
  const marked = { ...row, cancel_requested_at: requestedAt };
  return [
    {
      query: store.db
        .updateTable('runs')
        .set({ cancel_requested_at: requestedAt })
        .where('run', '=', row.run)
        .where('state', '=', row.state)
        .where('last_seq', '=', row.last_seq),
      expectRows: 1,
    },
    changes.record({ type: 'run', view: viewOf(marked) }, nowMs),
  ];
}

function giveUpWrite(store: Store<CoordinatorDb>, message: string, nowMs: number): Write {
  return {
    query: store.db
      .updateTable('inbox_messages')
      .set({ expires_at: nowMs })
      .where('id', '=', message)
      .where('held', '=', 1),
  };
}
