import { type Envelope, fromBase64, fromUtf8, type ScriptPayload } from '@hypha/protocol';
import type { Store } from '@hypha/store';
import type { SignedTarget } from './cancel-memory.ts';
import type { CoordinatorDb } from './schema.ts';

/** A script that is known here, as its cancel sees it. */
export interface TargetRecord extends SignedTarget {
  /** `aud.nodes`. */
  readonly nodes: readonly string[];
}

/** Undefined while nobody has told of it. */
export async function findTarget(
  store: Store<CoordinatorDb>,
  digest: string,
): Promise<TargetRecord | undefined> {
  const row = await store.db
    .selectFrom('revisions')
    .select(['realm', 'envelope'])
    .where('digest', '=', digest)
    .executeTakeFirst();
  if (row === undefined) return undefined;
  // Verified, with every signature, before it was stored.
  const { payload, signatures } = JSON.parse(row.envelope) as Envelope;
  const { aud } = JSON.parse(fromUtf8(fromBase64(payload))) as ScriptPayload;
  return { realm: row.realm, keyids: signatures.map(({ keyid }) => keyid), nodes: aud.nodes };
}
