import { assertMayCancel, HyphaError } from '@hypha/protocol';
import type { Store, Write } from '@hypha/store';
import { sql } from 'kysely';
import type { RunRow } from './run-record.ts';
import type { CancelOutcome, CoordinatorDb } from './schema.ts';

/** The cancels that are kept for one script envelope, whether or not they may end it. */
export interface TargetCancels {
  readonly target: string;
  readonly messages: readonly TargetCancel[];
  /** How many cancels there are, and how many of their messages have an outcome: what a write is guarded by. */
  readonly cancels: number;
  readonly settled: number;
}

interface TargetCancel extends CancelSigner {
  readonly node: string;
  readonly acceptedAt: number;
  readonly outcome: CancelOutcome | null;
}

/** What `assertMayCancel` asks of a cancel, as it is kept. */
export interface CancelSigner {
  readonly id: string;
  readonly realm: string;
  /** JSON. */
  readonly keyids: string;
  readonly may_cancel_any: number;
}

/** Who signed a script, and for which realm. */
export interface SignedTarget {
  readonly realm: string;
  readonly keyids: readonly string[];
}

/** Cancels may come before what they cancel (design §8): whoever adds a run asks here first. */
export async function readCancels(
  store: Store<CoordinatorDb>,
  target: string,
): Promise<TargetCancels> {
  const rows = await store.db
    .selectFrom('cancel_messages')
    .innerJoin('cancellations', 'cancellations.digest', 'cancel_messages.cancellation')
    .select(['cancellations.digest', 'id', 'realm', 'keyids', 'may_cancel_any'])
    .select(['accepted_at as acceptedAt', 'node', 'outcome'])
    .where('cancel_messages.target', '=', target)
    .execute();
  return {
    target,
    messages: rows,
    cancels: new Set(rows.map(({ digest }) => digest)).size,
    settled: rows.filter(({ outcome }) => outcome !== null).length,
  };
}

/** To be written behind the target's revision: `StoreConflict` when the cancels are no longer those that were read. */
export function cancelsUnchanged(store: Store<CoordinatorDb>, cancels: TargetCancels): Write {
  const { target } = cancels;
  return {
    query: store.db
      .updateTable('revisions')
      .set({ digest: target })
      .where('digest', '=', target)
      .where(
        sql<boolean>`(select count(*) from cancellations where target = ${target}) = ${cancels.cancels}
          and (select count(*) from cancel_messages
            where target = ${target} and outcome is not null) = ${cancels.settled}`,
      ),
    expectRows: 1,
  };
}

/** How a new run of the target stands towards the cancels that were there before it. */
export interface RunCancel {
  /** Null: none of them is for it. */
  readonly requestedAt: number | null;
  /** `clear`: it may be sent. `held`: not before its node has taken the cancel. `lost`: the node never will. */
  readonly delivery: 'clear' | 'held' | 'lost';
}

export function cancelOfRun(
  { messages }: TargetCancels,
  signed: SignedTarget,
  node: string,
): RunCancel {
  const valid = messages.filter((cancel) => cancel.node === node && mayCancel(cancel, signed));
  if (valid.length === 0) return { requestedAt: null, delivery: 'clear' };
  const requestedAt = Math.min(...valid.map(({ acceptedAt }) => acceptedAt));
  const has = (wanted: CancelOutcome | null) => valid.some(({ outcome }) => outcome === wanted);
  if (has('taken')) return { requestedAt, delivery: 'clear' };
  return { requestedAt, delivery: has(null) ? 'held' : 'lost' };
}

export function withCancel(row: RunRow, { requestedAt }: RunCancel): RunRow {
  return { ...row, cancel_requested_at: requestedAt };
}

export function mayCancel(cancel: CancelSigner, signed: SignedTarget): boolean {
  const { id, realm, may_cancel_any } = cancel;
  try {
    assertMayCancel(
      {
        payload: { id, realm },
        keyids: signersOf(cancel),
        mayCancelAny: may_cancel_any === 1,
      },
      signed,
    );
    return true;
  } catch (error) {
    if (error instanceof HyphaError) return false;
    throw error;
  }
}

/** Key ids. */
export function signersOf({ keyids }: Pick<CancelSigner, 'keyids'>): readonly string[] {
  return JSON.parse(keyids) as string[];
}
