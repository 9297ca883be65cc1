import type { Store, Write } from '@hypha/store';
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
 * taken back. Nothing of this while another cancel of it is on its way or was taken.
 */
export function lostCancelWrites(
  store: Store<CoordinatorDb>,
  { target, node }: CancelDelivery,
  nowMs: number,
): readonly Write[] {
  const { db } = store;
  const standing = db
    .selectFrom('cancel_messages')
    .select('position')
    .where('target', '=', target)
    .where('node', '=', node)
    .where((where) => where.or([where('outcome', 'is', null), where('outcome', '=', 'taken')]));
  const runs = db
    .selectFrom('runs')
    .select('runs.run')
    .where('digest', '=', target)
    .where('node', '=', node);
  const held = db
    .selectFrom('inbox_messages')
    .select('inbox_messages.run')
    .where('held', '=', 1)
    .where('node', '=', node);
  return [
    {
      query: db
        .updateTable('inbox_messages')
        .set({ expires_at: nowMs })
        .where('held', '=', 1)
        .where('run', 'in', runs)
        .where(({ not, exists }) => not(exists(standing))),
    },
    {
      query: db
        .updateTable('runs')
        .set({ cancel_requested_at: null })
        .where('digest', '=', target)
        .where('node', '=', node)
        .where('guess', 'is', null)
        .where('run', 'not in', held)
        .where(({ not, exists }) => not(exists(standing))),
    },
  ];
}
