import { HyphaError, type VerifiedScript } from '@hypha/protocol';
import type { Store } from '@hypha/store';
import { spentTokensOf } from './run-record.ts';
import type { CoordinatorDb } from './schema.ts';

/** Throws `E_REPLAY` when the id, or the nonce by one of its keys, was used by another envelope. */
export async function checkUnspent(
  store: Store<CoordinatorDb>,
  { payload, keyids, digest }: VerifiedScript,
): Promise<void> {
  const spent = await store.db
    .selectFrom('spent_tokens')
    .selectAll()
    .where('token', 'in', spentTokensOf(payload, keyids))
    .where('digest', '!=', digest)
    .orderBy('token')
    .executeTakeFirst();
  if (spent === undefined) return;
  const path = spent.token.startsWith('id ') ? 'id' : 'nonce';
  throw new HyphaError(
    'E_REPLAY',
    `the ${path} of revision ${payload.id} was used by envelope ${spent.digest}`,
    { where: { path } },
  );
}

/**
 * Throws `E_SUPERSEDED` below the generation last admitted for the deployment, `E_CONFLICT` at it with
 * another envelope. Plans and tasks have no generation of their own (design §8).
 */
export async function checkGeneration(
  store: Store<CoordinatorDb>,
  { payload, digest }: VerifiedScript,
): Promise<void> {
  const { realm, deployment, generation, mode } = payload;
  if (mode !== 'apply' && mode !== 'destroy') return;
  const mark = await store.db
    .selectFrom('generation_marks')
    .selectAll()
    .where('realm', '=', realm)
    .where('deployment', '=', deployment)
    .executeTakeFirst();
  if (mark === undefined || mark.generation < generation || mark.digest === digest) return;
  const details = { admitted: { generation: mark.generation, envelopeDigest: mark.digest } };
  if (mark.generation > generation) {
    throw new HyphaError(
      'E_SUPERSEDED',
      `generation ${generation} of ${realm}/${deployment} is below the admitted ${mark.generation}`,
      { where: { path: 'generation' }, details },
    );
  }
  throw new HyphaError(
    'E_CONFLICT',
    `generation ${generation} of ${realm}/${deployment} was admitted with another envelope`,
    {
      where: { path: 'generation' },
      details,
      hint: `sign again with a generation above ${generation}`,
    },
  );
}
