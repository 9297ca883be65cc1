import type { OutboxResult, Problem } from '@hypha/protocol';
import type { Write } from '@hypha/store';
import { mayCancel } from './cancel-memory.ts';
import { type CancelDelivery, lostCancelWrites, outcomeWrite } from './cancel-outcome.ts';
import { digestOfCancel, inboxTopic } from './inbox-message.ts';
import type { OutboxDeps } from './outbox-deps.ts';
import { runTopic } from './run-book.ts';
import { findTarget } from './target-record.ts';

interface CancelAnswer {
  readonly messageId: string;
  /** Null: the node has it durably. */
  readonly problem: Problem | null;
}

/** A node has the cancel, or will not have it. The first answer counts; durable when it resolves. */
export async function settleCancel(
  deps: OutboxDeps,
  node: string,
  { messageId, problem }: CancelAnswer,
): Promise<OutboxResult> {
  const { store, changes, bell, log, clock } = deps;
  const cancellation = digestOfCancel(messageId);
  const message = await store.db
    .selectFrom('cancel_messages')
    .innerJoin('cancellations', 'cancellations.digest', 'cancel_messages.cancellation')
    .select(['cancellation', 'cancel_messages.target', 'node', 'outcome'])
    .select(['id', 'realm', 'keyids', 'may_cancel_any'])
    .where('cancellation', '=', cancellation)
    .where('node', '=', node)
    .executeTakeFirst();
  if (message === undefined || message.outcome !== null) return { status: 'ok' };
  const { target } = message;
  if (problem !== null) {
    log.warn({ nodeId: node, cancellation, target, problem }, 'node refused a cancel');
    await store.write([
      outcomeWrite(store, message, 'refused'),
      ...(await lostCancelWrites(deps, message, clock.nowMs())),
    ]);
    changes.ring();
  } else {
    const signed = await findTarget(store, target);
    const isRelease = signed !== undefined && mayCancel(message, signed);
    await store.write([
      outcomeWrite(store, message, 'taken'),
      ...(signed === undefined ? [stillUnknown(deps, message)] : []),
      ...(isRelease ? releaseWrites(deps, message) : []),
    ]);
  }
  const runs = await store.db
    .selectFrom('runs')
    .select('run')
    .where('digest', '=', target)
    .where('node', '=', node)
    .execute();
  for (const { run } of runs) bell.ring(runTopic(run));
  bell.ring(inboxTopic(node));
  return { status: 'ok' };
}

/** A target that comes in this very moment, held for the cancel: read again, it is released. */
function stillUnknown(
  { store }: OutboxDeps,
  { cancellation, node, target }: CancelDelivery,
): Write {
  const { db } = store;
  const known = db.selectFrom('revisions').select('digest').where('digest', '=', target);
  return {
    query: db
      .updateTable('cancel_messages')
      .set({ attempts: ({ ref }) => ref('attempts') })
      .where('cancellation', '=', cancellation)
      .where('node', '=', node)
      .where(({ not, exists }) => not(exists(known))),
    expectRows: 1,
  };
}

/** Now it may come to its node: it meets its cancel there, and ends with a receipt. */
function releaseWrites({ store }: OutboxDeps, { target, node }: CancelDelivery): readonly Write[] {
  const { db } = store;
  const runs = db.selectFrom('runs').select('run').where('digest', '=', target);
  return [
    {
      query: db
        .updateTable('inbox_messages')
        .set({ held: 0, due_at: 0 })
        .where('node', '=', node)
        .where('held', '=', 1)
        .where('run', 'in', runs),
    },
  ];
}
