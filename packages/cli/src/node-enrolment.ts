import {
  type Authority,
  EnrolPayload,
  type Envelope,
  fromBase64,
  HyphaError,
  isHyphaError,
  parseStrictJson,
  type VerifiedEnrolment,
  verifyEnrolment,
} from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import { allPages, type Session } from './session.ts';

/** A node that took the place of one that took the place of one …: more are not followed. */
const REPLACED_MAX = 16;

/**
 * The newest enrolment of a node in the log that an admin of this authority stands behind. A node the ledger or
 * the coordinator made up has none.
 * @throws HyphaError `E_PENDING` when the log has no enrolment of it; why none of them holds otherwise
 */
export async function findEnrolment(
  session: Session,
  authority: Authority,
  node: string,
  depth = 0,
): Promise<VerifiedEnrolment> {
  const ledger = session.ledger();
  const entries = await allPages(
    (cursor) => ledger.listEntries({ kind: 'enrol', node, cursor, limit: 500 }),
    1000,
  );
  let refusal: unknown = new HyphaError('E_PENDING', `the log has no enrolment of ${node}`, {
    hint: 'do not use this node: no admin ever admitted it; hypha node list',
  });
  for (const { envelope } of entries.toReversed()) {
    try {
      const verified = await verifyOne(session, authority, envelope, depth);
      if (verified.node === node) return verified;
    } catch (error) {
      if (!isHyphaError(error)) throw error;
      refusal = error;
    }
  }
  throw refusal;
}

async function verifyOne(
  session: Session,
  authority: Authority,
  envelope: Envelope,
  depth: number,
): Promise<VerifiedEnrolment> {
  const { replaces } = EnrolPayload.parse(parseStrictJson(fromBase64(envelope.payload)));
  const replaced =
    replaces === undefined || depth >= REPLACED_MAX
      ? undefined
      : await findEnrolment(session, authority, replaces, depth + 1);
  return verifyEnrolment(nodeVerifier, {
    envelope,
    authority,
    profile: 'audit',
    findReplaced: (id) =>
      id === replaced?.node
        ? { publicKey: replaced.publicKey, admission: replaced.admission.digest }
        : undefined,
  });
}
