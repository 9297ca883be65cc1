/**
 * The keys that secrets are sealed to. They come from the nodes' own signed enrolments, checked down to the pinned
 * genesis: neither ledger nor coordinator can slip in a key, or a node that no admin let in.
 */
import {
  type Authority,
  type EnrolStatement,
  type Envelope,
  fromBase64,
  HyphaError,
  isHyphaError,
  LIMITS,
  type ScriptPayload,
  type SecretValues,
  sealSecrets,
  verifyEnrolStatement,
} from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import { fetchAuthority } from './authority-chain.ts';
import { systemEntropy } from './authority-signing.ts';
import { findEnrolment } from './node-enrolment.ts';
import { allPages, type Session } from './session.ts';

const NODES_AT_ONCE = 8;

/** `payload.secrets`: one box for each candidate. Throws `E_SECRET`, `E_SIZE`, and what `findEnrolment` does. */
export async function sealForNodes(
  session: Session,
  { id, realm, aud }: Pick<ScriptPayload, 'id' | 'realm' | 'aud'>,
  secrets: SecretValues,
): Promise<Record<string, string>> {
  if (Object.keys(secrets).length === 0) return {};
  const authority = await fetchAuthority(session);
  const { randomBytes } = systemEntropy(session.nowMs());
  const boxes: Record<string, string> = {};
  for (let at = 0; at < aud.nodes.length; at += NODES_AT_ONCE) {
    const nodes = aud.nodes.slice(at, at + NODES_AT_ONCE);
    const keys = await Promise.all(nodes.map((node) => readSealKey(session, authority, node)));
    for (const [index, node] of nodes.entries()) {
      const [context, sealKey] = [{ realm, node, id }, keys[index] ?? new Uint8Array()];
      boxes[node] = sealSecrets(secrets, { context, sealKey, randomBytes });
    }
  }
  const bytes = Object.values(boxes).reduce((sum, box) => sum + box.length, 0);
  if (bytes <= LIMITS.payloadBytesMax) return boxes;
  throw new HyphaError(
    'E_SIZE',
    `the secrets take ${bytes} bytes for ${aud.nodes.length} nodes, a revision at most ${LIMITS.payloadBytesMax}`,
    { hint: 'apply to fewer nodes at once, or keep what is large in a volume' },
  );
}

/** Of the node's newest statement. Throws what `findEnrolment` does for a node that no admin let in. */
async function readSealKey(
  session: Session,
  authority: Authority,
  node: string,
): Promise<Uint8Array> {
  const joined: EnrolStatement = await findEnrolment(session, authority, node);
  const ledger = session.ledger();
  const entries = await allPages((cursor) =>
    ledger.listEntries({ kind: 'enrol', node, limit: LIMITS.listItemsMax, cursor }),
  );
  const statements = entries.flatMap(({ envelope }) => readStatement(authority, node, envelope));
  const newest = statements.reduce(
    (best, each) => (each.payload.iat > best.payload.iat ? each : best),
    joined,
  );
  return fromBase64(newest.payload.sealKey);
}

/** What the key of a node that was let in says later, of its sealing key among others. */
function readStatement(authority: Authority, node: string, envelope: Envelope): EnrolStatement[] {
  try {
    const statement = verifyEnrolStatement(nodeVerifier, { envelope, authority });
    return statement.node === node ? [statement] : [];
  } catch (error) {
    // Two keys sign the one that takes another's place: `findEnrolment` has that.
    if (isHyphaError(error)) return [];
    throw error;
  }
}
