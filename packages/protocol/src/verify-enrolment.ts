import type { Authority } from './authority.ts';
import type { Verifier } from './crypto-port.ts';
import type { Envelope } from './dsse.ts';
import { fromBase64, hex } from './encoding.ts';
import { HyphaError } from './hypha-error.ts';
import { keyIdOf, type NodeId, nodeIdOf } from './ids.ts';
import { EnrolPayload } from './node-payloads.ts';
import { findUncovered } from './scope.ts';
import {
  type AdmissionProfile,
  type VerifiedAdmission,
  verifyAdmission,
} from './verify-admission.ts';
import { openEnvelope, verifyOpened } from './verify-envelope.ts';
import { parseJsonAs } from './wire.ts';

export interface VerifiedEnrolment {
  readonly node: NodeId;
  /** Raw key of the node: signs its reports, receipts and requests. */
  readonly publicKey: Uint8Array;
  readonly payload: EnrolPayload;
  readonly admission: VerifiedAdmission;
  readonly digest: string;
  readonly envelope: Envelope;
}

/**
 * A node's enrolment: signed by the key it brings, under an admission whose token it holds.
 * @param input.challenge the one the ledger gave out; absent in an audit
 * @throws HyphaError the codes of `verifyEnvelope` and `verifyAdmission`, `E_CHALLENGE`, `E_TOKEN`,
 *   `E_CONFLICT` when the key has a role in the authority, `E_KEY_REVOKED` when the node was revoked
 */
export function verifyEnrolment(
  verifier: Verifier,
  input: {
    readonly envelope: Envelope;
    readonly authority: Authority;
    readonly challenge?: string;
  } & AdmissionProfile,
): VerifiedEnrolment {
  const { envelope, authority, challenge } = input;
  const opened = openEnvelope(verifier, envelope, 'enrol');
  // The key is inside what it signs. Reading it first is sound: the node id is derived from it, so a
  // changed key is another node, and a signature that does not fit it is refused.
  const payload = parseJsonAs(EnrolPayload, opened.payload, {
    code: 'E_PAYLOAD',
    what: 'the enrolment',
    integersOnly: true,
  });
  const publicKey = decode(payload.publicKey, 'publicKey', 'E_WEAK_KEY');
  const keyid = keyIdOf(verifier, publicKey);
  const { digest } = verifyOpened(verifier, opened, () => publicKey);
  const node = nodeIdOf(verifier, publicKey);
  if (challenge !== undefined && payload.challenge !== challenge) {
    throw new HyphaError('E_CHALLENGE', `enrolment of ${node} answers another challenge`, {
      where: { path: 'challenge' },
    });
  }
  if (authority.isNodeRevoked(node)) {
    throw new HyphaError('E_KEY_REVOKED', `node ${node} was revoked`, {
      where: { path: 'publicKey' },
      hint: 'make a new node key: remove the node state and join again',
    });
  }
  if (authority.findKey(keyid) !== undefined || authority.rootKeyIds.includes(keyid)) {
    throw new HyphaError('E_CONFLICT', `key ${keyid} has a role in the authority already`, {
      where: { path: 'publicKey' },
    });
  }
  const admission = verifyAdmission(verifier, { ...input, envelope: payload.admission });
  checkToken(verifier, payload, admission);
  if (findUncovered(admission.grant.nodes, [node]) !== undefined) {
    throw new HyphaError('E_SCOPE', `key ${admission.grant.name} may not admit ${node}`, {
      where: { path: 'admission' },
    });
  }
  return { node, publicKey, payload, admission, digest, envelope };
}

function checkToken(
  verifier: Verifier,
  payload: EnrolPayload,
  { payload: admitted }: VerifiedAdmission,
): void {
  const token = decode(payload.token, 'token', 'E_TOKEN');
  if (hex(verifier.sha256(token)) !== admitted.tokenHash) {
    throw new HyphaError('E_TOKEN', `the token is not that of the admission of ${admitted.name}`, {
      where: { path: 'token' },
    });
  }
  if (payload.iat >= admitted.exp) {
    throw new HyphaError(
      'E_TOKEN',
      `the admission of ${admitted.name} expired before the enrolment`,
      {
        where: { path: 'iat' },
      },
    );
  }
}

function decode(text: string, path: string, code: 'E_WEAK_KEY' | 'E_TOKEN'): Uint8Array {
  try {
    return fromBase64(text);
  } catch (cause) {
    throw new HyphaError(code, `cannot read the ${path} of the enrolment: not canonical base64`, {
      cause,
      where: { path },
    });
  }
}
