/**
 * The keys that secrets are sealed to. They come from the nodes' own signed enrolments, checked down to the pinned
 * genesis: neither ledger nor coordinator can slip in a key, or a node that no admin let in.
 */
import {
  type Authority,
  EnrolPayload,
  type EnrolStatement,
  type Envelope,
  fromBase64,
  HyphaError,
  isHyphaError,
  LIMITS,
  parseStrictJson,
  type ScriptPayload,
  type SecretValues,
  sealSecrets,
  type VerifiedEnrolment,
  verifyEnrolment,
  verifyEnrolStatement,
} from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import { systemEntropy } from './authority-signing.ts';
import { fetchAuthority } from './commands/authority.ts';
import { allPages, type Session } from './session.ts';

/** A node may have taken the place of one that had taken the place of another. */
const REPLACEMENTS_MAX = 16;
const NODES_AT_ONCE = 8;

/** `payload.secrets`: one box for each candidate. Throws `E_SECRET`, `E_SIZE`, `E_NOT_FOUND`. */
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

/** Of the node's newest statement. Throws `E_NOT_FOUND` for a node that no verified enrolment let in. */
async function readSealKey(
  session: Session,
  authority: Authority,
  node: string,
): Promise<Uint8Array> {
  const reader = new EnrolmentReader(session, authority);
  const joined = await reader.readJoined(node, REPLACEMENTS_MAX);
  const statements = await reader.readStatements(node);
  const newest = statements.reduce(
    (best, each) => (each.payload.iat > best.payload.iat ? each : best),
    joined as EnrolStatement,
  );
  return fromBase64(newest.payload.sealKey);
}

class EnrolmentReader {
  readonly #session: Session;
  readonly #authority: Authority;

  constructor(session: Session, authority: Authority) {
    this.#session = session;
    this.#authority = authority;
  }

  /** What let the node in. */
  async readJoined(node: string, replacementsMax: number): Promise<VerifiedEnrolment> {
    let refusal: unknown;
    for (const envelope of await this.#readEnvelopes(node)) {
      try {
        const enrolment = await this.#verify(envelope, replacementsMax);
        if (enrolment.node === node) return enrolment;
      } catch (error) {
        if (!isHyphaError(error)) throw error;
        refusal ??= error;
      }
    }
    throw new HyphaError('E_NOT_FOUND', `no enrolment of ${node} that holds is in the log`, {
      cause: refusal,
      hint: 'without one nothing is sealed to it: hypha node show NODE',
    });
  }

  /** What the node's key said later, of its sealing key among others. */
  async readStatements(node: string): Promise<EnrolStatement[]> {
    const envelopes = await this.#readEnvelopes(node);
    return envelopes.flatMap((envelope) => {
      try {
        const authority = this.#authority;
        const statement = verifyEnrolStatement(nodeVerifier, { envelope, authority });
        return statement.node === node ? [statement] : [];
      } catch (error) {
        // Two keys sign one that takes a node's place: `readJoined` has that one.
        if (isHyphaError(error)) return [];
        throw error;
      }
    });
  }

  /** A node that took another's place stands under the admission of that one, which is looked at as well. */
  async #verify(envelope: Envelope, replacementsMax: number): Promise<VerifiedEnrolment> {
    const { replaces } = payloadOf(envelope);
    const before =
      replaces === undefined || replacementsMax === 0
        ? undefined
        : await this.readJoined(replaces, replacementsMax - 1);
    return verifyEnrolment(nodeVerifier, {
      envelope,
      authority: this.#authority,
      profile: 'audit',
      findReplaced: (id) =>
        id === before?.node
          ? { publicKey: before.publicKey, admission: before.admission.digest }
          : undefined,
    });
  }

  async #readEnvelopes(node: string): Promise<Envelope[]> {
    const ledger = this.#session.ledger();
    const entries = await allPages((cursor) =>
      ledger.listEntries({ kind: 'enrol', node, limit: LIMITS.listItemsMax, cursor }),
    );
    return entries.map(({ envelope }) => envelope);
  }
}

function payloadOf(envelope: Envelope): EnrolPayload {
  try {
    return EnrolPayload.parse(parseStrictJson(fromBase64(envelope.payload)));
  } catch (cause) {
    throw new HyphaError('E_PAYLOAD', 'cannot read an enrolment of the log', { cause });
  }
}
