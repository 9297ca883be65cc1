import { HyphaError, toProblem } from '@hypha/protocol';
import type { Logger } from '@hypha/service';
import { isStoreConflict, type Store } from '@hypha/store';
import { type CancelDelivery, lostCancelWrites, outcomeWrite } from './cancel-outcome.ts';
import type { ChangeFeed } from './change-feed.ts';
import type { Clock } from './clock.ts';
import type { Doorbell } from './doorbell.ts';
import { COORDINATOR_LIMITS as LIMITS } from './limits.ts';
import { type RunBook, runTopic } from './run-book.ts';
import type { RunRow } from './run-record.ts';
import type { CoordinatorDb } from './schema.ts';

/**
 * Gives up messages whose envelope no node may admit any more: the run counts as rejected until its node
 * says otherwise. Answers how many; call again while it is the bound.
 */
export async function expireMessages(deps: {
  readonly store: Store<CoordinatorDb>;
  readonly runs: RunBook;
  readonly clock: Clock;
  readonly log: Logger;
}): Promise<number> {
  const { store, runs, clock, log } = deps;
  const nowMs = clock.nowMs();
  const expired = await store.db
    .selectFrom('inbox_messages')
    .select(['id', 'run', 'node', 'attempts', 'held'])
    .where('expires_at', '<=', nowMs)
    .orderBy('expires_at')
    .limit(LIMITS.expiredAtOnce)
    .execute();
  for (const message of expired) {
    const { id, run, node, attempts } = message;
    const forget = {
      query: store.db.deleteFrom('inbox_messages').where('id', '=', id),
      expectRows: 1,
    };
    const row = await runs.find(run);
    if (row === undefined) {
      await store.write([{ query: forget.query }]);
      continue;
    }
    const problem = toProblem(reasonOf(message, row));
    try {
      await runs.change(row, { guess: { problem, atMs: nowMs } }, nowMs, [forget]);
      log.warn({ run, nodeId: node, attempts }, 'run expired undelivered');
    } catch (error) {
      // Its node answered in this very moment.
      if (!isStoreConflict(error)) throw error;
    }
  }
  return expired.length;
}

interface ExpiredMessage {
  readonly run: string;
  readonly node: string;
  readonly attempts: number;
  readonly held: number;
}

function reasonOf({ run, node, attempts, held }: ExpiredMessage, row: RunRow): HyphaError {
  if (held === 1 || row.cancel_requested_at !== null) {
    const what =
      attempts === 0
        ? 'before it was sent, and is not sent any more'
        : `while ${node}, to which it was sent ${attempts} times, did not answer`;
    return new HyphaError('E_CANCELLED', `run ${run} was cancelled ${what}`);
  }
  return new HyphaError(
    'E_EXPIRED',
    attempts === 0
      ? `${node} was not there to take run ${run} before its envelope expired`
      : `${node} did not answer to run ${run} before its envelope expired (sent ${attempts} times)`,
    { hint: 'look at the node (hypha node list), then sign again: hypha apply' },
  );
}

/**
 * Gives up cancels that no node may take any more, with what was held back for them. Answers how many; call
 * again while it is the bound.
 */
export async function expireCancels(deps: {
  readonly store: Store<CoordinatorDb>;
  readonly changes: ChangeFeed;
  readonly bell: Doorbell;
  readonly clock: Clock;
  readonly log: Logger;
}): Promise<number> {
  const { store, changes, bell, clock, log } = deps;
  const nowMs = clock.nowMs();
  const expired = await store.db
    .selectFrom('cancel_messages')
    .select(['cancellation', 'target', 'node', 'attempts'])
    .where('outcome', 'is', null)
    .where('expires_at', '<=', nowMs)
    .orderBy('expires_at')
    .limit(LIMITS.expiredAtOnce)
    .execute();
  for (const message of expired) {
    try {
      await store.write([
        outcomeWrite(store, message, 'expired'),
        ...(await lostCancelWrites(deps, message, nowMs)),
      ]);
      changes.ring();
      for (const { run } of await runsOf(store, message)) bell.ring(runTopic(run));
      log.warn({ ...message }, 'cancel expired unanswered');
    } catch (error) {
      // Its node answered in this very moment.
      if (!isStoreConflict(error)) throw error;
    }
  }
  return expired.length;
}

function runsOf(store: Store<CoordinatorDb>, { target, node }: CancelDelivery) {
  return store.db
    .selectFrom('runs')
    .select('run')
    .where('digest', '=', target)
    .where('node', '=', node)
    .execute();
}
