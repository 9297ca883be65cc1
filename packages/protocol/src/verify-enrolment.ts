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

/** Possession of a node key, proven; whether the node may join is not looked at. */
export interface EnrolStatement {
  readonly node: NodeId;
  readonly publicKey: Uint8Array;
  readonly payload: EnrolPayload;
  readonly digest: string;
  readonly envelope: Envelope;
}

interface StatementInput {
  readonly envelope: Envelope;
  readonly authority: Authority;
  /** The one the ledger gave out; absent in an audit. */
  readonly challenge?: string;
  /** Raw key of an enrolled node: whose place a new key takes has to sign that too. */
  readonly findNodeKey?: (node: NodeId) => Uint8Array | undefined;
}

/** An enrolled node, whose place another key may take. */
export interface ReplaceableNode {
  /** Raw. */
  readonly publicKey: Uint8Array;
  /** Digest of the admission it stands under: that of its own verified enrolment. */
  readonly admission: string;
}

interface EnrolmentInput extends Omit<StatementInput, 'findNodeKey'> {
  /** Without it, nothing that replaces a node is good. */
  readonly findReplaced?: (node: NodeId) => ReplaceableNode | undefined;
}

/**
 * A node's enrolment: signed by the key it brings, under an admission of its own, of a token it holds, or of
 * the node it replaces.
 * @throws HyphaError the codes of `verifyEnrolStatement` and `verifyAdmission`, `E_PENDING` without an admission, `E_TOKEN`
 */
export function verifyEnrolment(
  verifier: Verifier,
  input: EnrolmentInput & AdmissionProfile,
): VerifiedEnrolment {
  const { findReplaced } = input;
  const findNodeKey = (replaced: NodeId) => findReplaced?.(replaced)?.publicKey;
  const statement = verifyEnrolStatement(verifier, { ...input, findNodeKey });
  const { node, payload } = statement;
  if (payload.admission === undefined) {
    throw new HyphaError('E_PENDING', `no admin has admitted ${node} yet`, {
      where: { path: 'admission' },
      hint: `compare the fingerprint, then: hypha node admit ${node}`,
    });
  }
  // The place of a node that is replaced was admitted long ago: dates bind only who joins anew.
  const profile: AdmissionProfile =
    input.profile === 'accept' && payload.replaces === undefined
      ? { profile: 'accept', nowSeconds: input.nowSeconds }
      : { profile: 'audit' };
  const admission = verifyAdmission(verifier, {
    envelope: payload.admission,
    authority: input.authority,
    ...profile,
  });
  if (payload.replaces === undefined) checkIsFor(verifier, statement, admission);
  else checkIsInherited(payload.replaces, findReplaced?.(payload.replaces), admission);
  if (findUncovered(admission.grant.nodes, [node]) !== undefined) {
    throw new HyphaError('E_SCOPE', `key ${admission.grant.name} may not admit ${node}`, {
      where: { path: 'admission' },
    });
  }
  return { ...statement, admission };
}

/**
 * @throws HyphaError the codes of `verifyEnvelope`, `E_CHALLENGE`, `E_CONFLICT` when the key has a role in the
 *   authority, `E_KEY_REVOKED` when the node was revoked
 */
export function verifyEnrolStatement(verifier: Verifier, input: StatementInput): EnrolStatement {
  const { envelope, authority, challenge, findNodeKey } = input;
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
  const { digest, keyids } = verifyOpened(verifier, opened, (claimed) => {
    if (claimed === keyid) return publicKey;
    return payload.replaces === undefined ? undefined : findNodeKey?.(payload.replaces);
  });
  const node = nodeIdOf(verifier, publicKey);
  const expected = payload.replaces === undefined ? 1 : 2;
  if (!keyids.includes(keyid) || keyids.length !== expected) {
    throw new HyphaError(
      'E_SIG_THRESHOLD',
      `enrolment of ${node} needs ${expected === 1 ? 'its own signature' : 'its own signature and that of the key it replaces'}`,
      { where: { path: 'signatures' } },
    );
  }
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
  if (payload.replaces !== undefined && authority.isNodeRevoked(payload.replaces)) {
    throw new HyphaError('E_KEY_REVOKED', `node ${payload.replaces} was revoked`, {
      where: { path: 'replaces' },
      hint: 'an admin can admit the new key in its place: hypha node admit NODE --replaces OLD',
    });
  }
  const hasRole =
    authority.findKey(keyid) !== undefined ||
    authority.rootKeyIds.includes(keyid) ||
    authority.ledgerKey?.keyid === keyid;
  if (hasRole) {
    throw new HyphaError('E_CONFLICT', `key ${keyid} has a role in the authority already`, {
      where: { path: 'publicKey' },
    });
  }
  return { node, publicKey, payload, digest, envelope };
}

/** A signature hands on the place a node has, and no other. */
function checkIsInherited(
  replaced: NodeId,
  known: ReplaceableNode | undefined,
  { digest, payload }: VerifiedAdmission,
): void {
  if (known?.admission === digest) return;
  throw new HyphaError(
    'E_TOKEN',
    `${replaced} does not stand under the admission of ${payload.name}`,
    {
      where: { path: 'admission' },
    },
  );
}

/** The admission names this node, or its token is shown. */
function checkIsFor(
  verifier: Verifier,
  { node, payload }: EnrolStatement,
  admission: VerifiedAdmission,
): void {
  const { payload: admitted } = admission;
  if (admitted.tokenHash !== undefined) {
    checkToken(verifier, payload, admission);
    return;
  }
  if (admitted.node === node) return;
  throw new HyphaError(
    'E_TOKEN',
    `the admission of ${admitted.name} is for ${admitted.node}, not for ${node}`,
    { where: { path: 'admission' } },
  );
}

function checkToken(
  verifier: Verifier,
  payload: EnrolPayload,
  { payload: admitted }: VerifiedAdmission,
): void {
  const token = decode(payload.token ?? '', 'token', 'E_TOKEN');
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
