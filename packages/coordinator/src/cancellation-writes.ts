import type { VerifiedCancel } from '@hypha/protocol';
import type { Store, Write } from '@hypha/store';
import { sql } from 'kysely';
import type { ChangeFeed } from './change-feed.ts';
import { expiresAt } from './resend-schedule.ts';
import { type RunRow, viewOf } from './run-record.ts';
import type { CoordinatorDb } from './schema.ts';

/** Rows of one insert. */
const NODES_PER_INSERT = 100;

interface Acceptance {
  readonly store: Store<CoordinatorDb>;
  readonly changes: ChangeFeed;
  readonly cancel: VerifiedCancel;
  /** To be told. */
  readonly nodes: readonly string[];
  /** Its runs that are not over, as they were read. */
  readonly live: readonly RunRow[];
  /** Runs of the target when they were read, on whatever node. */
  readonly runsKnown: number;
  readonly nowMs: number;
  readonly graceMs: number;
}

/**
 * Everything a 202 to a cancel promises, as one list. `StoreConflict` when a run of the target came or changed its
 * state since it was read.
 */
export function cancellationWrites(acceptance: Acceptance): readonly Write[] {
  return [
    ...keptWrites(acceptance),
    ...messageWrites(acceptance),
    ...acceptance.live.flatMap((row) => markWrites(acceptance, row)),
  ];
}

function keptWrites({ store, cancel, runsKnown, nowMs }: Acceptance): readonly Write[] {
  const { payload, digest, envelope, keyids, mayCancelAny } = cancel;
  const { db } = store;
  const { target } = payload;
  return [
    {
      query: db.insertInto('cancellations').values({
        digest,
        id: payload.id,
        target,
        realm: payload.realm,
        keyids: JSON.stringify(keyids),
        may_cancel_any: mayCancelAny ? 1 : 0,
        envelope: JSON.stringify(envelope),
        accepted_at: nowMs,
      }),
      expectRows: 1,
    },
    {
      query: db
        .updateTable('cancellations')
        .set({ target })
        .where('digest', '=', digest)
        .where(
          sql<boolean>`(select count(*) from runs where runs.digest = ${target}) = ${runsKnown}`,
        ),
      expectRows: 1,
    },
  ];
}

function messageWrites({ store, cancel, nodes, graceMs }: Acceptance): readonly Write[] {
  const { payload, digest } = cancel;
  const rows = nodes.map((node) => ({
    cancellation: digest,
    target: payload.target,
    node,
    outcome: null,
    attempts: 0,
    due_at: 0,
    expires_at: expiresAt(payload.exp, graceMs),
  }));
  const writes: Write[] = [];
  for (let at = 0; at < rows.length; at += NODES_PER_INSERT) {
    const values = rows.slice(at, at + NODES_PER_INSERT);
    const query = store.db.insertInto('cancel_messages').values(values);
    writes.push({ query, expectRows: values.length });
  }
  return writes;
}

/** The run shows that it is to end, and its submission waits until its node has taken the cancel. */
function markWrites({ store, changes, nowMs }: Acceptance, row: RunRow): readonly Write[] {
  const { db } = store;
  const marked = { ...row, cancel_requested_at: row.cancel_requested_at ?? nowMs };
  const mark: Write = {
    query: db
      .updateTable('runs')
      .set({ cancel_requested_at: marked.cancel_requested_at })
      .where('run', '=', row.run)
      .where('state', '=', row.state),
    expectRows: 1,
  };
  // Another cancel was before it, and did this already.
  if (row.cancel_requested_at !== null) return [mark];
  return [
    mark,
    { query: db.updateTable('inbox_messages').set({ held: 1 }).where('run', '=', row.run) },
    changes.record({ type: 'run', view: viewOf(marked) }, nowMs),
  ];
}
