import {
  base64,
  type EnrolStatement,
  keyIdOf,
  type NodeFacts,
  type ResourceLimits,
  type VerifiedEnrolment,
  type Verifier,
} from '@hypha/protocol';
import type { Store, Write } from '@hypha/store';
import type { LedgerDb, NodeRow } from './ledger-schema.ts';

type Db = Store<LedgerDb>['db'];

/** The record of a node that enrols at `nowMs`. */
export function joinWrites(
  db: Db,
  verifier: Verifier,
  { node, publicKey, payload, admission }: VerifiedEnrolment,
  nowMs: number,
): Write[] {
  const { name, labels, realms } = admission.payload;
  const { facts } = payload;
  return [
    {
      query: db.insertInto('nodes').values({
        id: node,
        name,
        keyid: keyIdOf(verifier, publicKey),
        public_key: base64(publicKey),
        seal_key: payload.sealKey,
        enrolled_iat: payload.iat,
        labels: JSON.stringify(labels),
        realms: JSON.stringify(realms),
        enrolled_at: nowMs,
        revoked: 0,
        replaced_by: null,
        heard_at: nowMs,
        report_seq: 0,
        reported_at: null,
        report: null,
        boot_id: payload.bootId,
        uptime_ms: 0,
        facts: JSON.stringify(facts),
        free: JSON.stringify(freeOf(facts)),
      }),
      expectRows: 1,
    },
    ...Object.entries(labels).map(([key, value]) => ({
      query: db.insertInto('node_labels').values({ node, key, value }),
      expectRows: 1,
    })),
  ];
}

/** Of a node that has not reported yet: all it has. */
export function freeOf({ cpus, memoryBytes, storageBytes }: NodeFacts): ResourceLimits {
  return { milliCpus: cpus * 1000, memoryBytes, storageBytes };
}

/** Secrets are sealed to another key from now on. Fails for a statement that is not newer than the last. */
export function sealWrite(db: Db, { node, payload }: EnrolStatement): Write {
  const { sealKey, iat } = payload;
  return {
    query: db
      .updateTable('nodes')
      .set({ seal_key: sealKey, enrolled_iat: iat })
      .where('id', '=', node)
      .where('revoked', '=', 0)
      .where('enrolled_iat', '<', iat),
    expectRows: 1,
  };
}

/** The machine's chain of receipts goes on under its new key, from where the old one left it. */
export function inheritReceiptsWrite(db: Db, { id }: NodeRow, by: string): Write {
  return {
    query: db
      .insertInto('receipt_chains')
      .columns(['node', 'seq', 'digest'])
      .expression((query) =>
        query
          .selectFrom('receipt_chains')
          .select(({ val }) => [val(by).as('node'), 'seq', 'digest'])
          .where('node', '=', id),
      ),
  };
}

/**
 * Takes name and labels from a node, and all that its key could do: before `by` gets them, in the same
 * list. What stands for its name afterwards is made of its id. Fails when it was replaced by then.
 */
export function replaceWrites(db: Db, { id, revoked }: NodeRow, by: string): Write[] {
  return [
    {
      query: db
        .updateTable('nodes')
        .set({
          name: `replaced-${id.slice('node_'.length)}`,
          labels: '{}',
          revoked: 1,
          replaced_by: by,
        })
        .where('id', '=', id)
        .where('replaced_by', 'is', null)
        .where('revoked', '=', revoked),
      expectRows: 1,
    },
    { query: db.deleteFrom('node_labels').where('node', '=', id) },
  ];
}
