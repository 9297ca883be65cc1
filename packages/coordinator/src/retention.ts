import type { Store, Write } from '@hypha/store';
import { COORDINATOR_LIMITS as LIMITS } from './limits.ts';
import type { CoordinatorDb } from './schema.ts';

const UNFINISHED = ['accepted', 'queued', 'running', 'undoing', 'committed'];

/**
 * Forgets revisions whose runs all ended and that were known before `beforeMs`, whole: runs, journals,
 * receipts, spent ids and nonces (their envelopes expired long before, so they cannot come back). The
 * newest revision of a deployment stays, and generation marks stay for ever. Answers how many; call
 * again while it is the bound.
 */
export async function forgetOldRevisions(
  store: Store<CoordinatorDb>,
  beforeMs: number,
): Promise<number> {
  const old = await store.db
    .selectFrom('revisions')
    .select('digest')
    .where('known_at', '<', beforeMs)
    .where(({ not, exists, selectFrom }) =>
      not(
        exists(
          selectFrom('generation_marks')
            .select('digest')
            .whereRef('generation_marks.digest', '=', 'revisions.digest'),
        ),
      ),
    )
    .where(({ not, exists, selectFrom }) =>
      not(
        exists(
          selectFrom('runs')
            .select('run')
            .whereRef('runs.digest', '=', 'revisions.digest')
            .where('state', 'in', UNFINISHED),
        ),
      ),
    )
    .orderBy('known_at')
    .limit(LIMITS.retentionRevisionsAtOnce)
    .execute();
  if (old.length > 0) {
    await store.write(
      forgetWrites(
        store,
        old.map(({ digest }) => digest),
      ),
    );
  }
  return old.length;
}

function forgetWrites(store: Store<CoordinatorDb>, digests: readonly string[]): readonly Write[] {
  const { db } = store;
  const runs = db.selectFrom('runs').select('run').where('digest', 'in', digests);
  return [
    { query: db.deleteFrom('journal_events').where('run', 'in', runs) },
    { query: db.deleteFrom('receipts').where('run', 'in', runs) },
    { query: db.deleteFrom('inbox_messages').where('run', 'in', runs) },
    { query: db.deleteFrom('runs').where('digest', 'in', digests) },
    { query: db.deleteFrom('spent_tokens').where('digest', 'in', digests) },
    { query: db.deleteFrom('revisions').where('digest', 'in', digests) },
  ];
}

/**
 * Forgets cancels accepted before `beforeMs`, with their messages: every script they could be for has expired.
 */
export async function forgetOldCancels(
  store: Store<CoordinatorDb>,
  beforeMs: number,
): Promise<void> {
  const { db } = store;
  const old = db.selectFrom('cancellations').select('digest').where('accepted_at', '<', beforeMs);
  await store.write([
    { query: db.deleteFrom('cancel_messages').where('cancellation', 'in', old) },
    { query: db.deleteFrom('cancellations').where('accepted_at', '<', beforeMs) },
  ]);
}
