import { HyphaError, toProblem } from '@hypha/protocol';
import type { Logger } from '@hypha/service';
import { isStoreConflict, type Store } from '@hypha/store';
import type { Clock } from './clock.ts';
import { COORDINATOR_LIMITS as LIMITS } from './limits.ts';
import type { RunBook } from './run-book.ts';
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
    .select(['id', 'run', 'node', 'attempts'])
    .where('expires_at', '<=', nowMs)
    .orderBy('expires_at')
    .limit(LIMITS.expiredAtOnce)
    .execute();
  for (const { id, run, node, attempts } of expired) {
    const forget = {
      query: store.db.deleteFrom('inbox_messages').where('id', '=', id),
      expectRows: 1,
    };
    const row = await runs.find(run);
    if (row === undefined) {
      await store.write([{ query: forget.query }]);
      continue;
    }
    const problem = toProblem(
      new HyphaError(
        'E_EXPIRED',
        attempts === 0
          ? `${node} was not there to take run ${run} before its envelope expired`
          : `${node} did not answer to run ${run} before its envelope expired (sent ${attempts} times)`,
        { hint: 'look at the node (hypha node list), then sign again: hypha apply' },
      ),
    );
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
