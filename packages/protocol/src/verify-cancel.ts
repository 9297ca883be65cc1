/**
 * The one verification of cancels (design §8). Node and coordinator call it; like `verifyScript`, one code a
 * check. A cancel is harmless twice and needs no fresh view of the log: only new work does.
 */
import type { Authority } from './authority.ts';
import type { Grant } from './authority-payload.ts';
import type { KeyRecord } from './authority-state.ts';
import { CancelPayload } from './cancel-payload.ts';
import type { Verifier } from './crypto-port.ts';
import type { Envelope } from './dsse.ts';
import { HyphaError } from './hypha-error.ts';
import { LIMITS } from './limits.ts';
import { findUncovered } from './scope.ts';
import { findUsableKey } from './usable-key.ts';
import { openEnvelope, verifyOpened } from './verify-envelope.ts';
import type { ScriptTarget } from './verify-script.ts';
import { parseEnvelope, parseJsonAs } from './wire.ts';

/** The capability that lets an operator cancel what others signed. */
export const CANCEL_CAPABILITY = 'cancel';

export interface VerifiedCancel {
  readonly payload: CancelPayload;
  /** Hex SHA-256 of the pre-authentication bytes. */
  readonly digest: string;
  readonly envelope: Envelope;
  readonly keyids: readonly string[];
  /** True when a signer may cancel what others signed, in this realm and on these nodes. */
  readonly mayCancelAny: boolean;
}

export interface VerifyCancelInput {
  /** Parsed already, or the raw JSON text. */
  readonly envelope: Envelope | Uint8Array;
  readonly authority: Authority;
  /** Wall clock, seconds since 1970. Absent: the times were checked when it was accepted. */
  readonly nowSeconds?: number;
  /** The node that is asked; absent at the coordinator. */
  readonly node?: ScriptTarget;
}

/**
 * Everything but whether the target is the signer's: `assertMayCancel` says that once the target is known.
 * @throws HyphaError in this order `E_SIZE`, `E_ENVELOPE`, `E_PAYLOAD_TYPE`, `E_SIG_FORMAT`, `E_UNKNOWN_KEY`,
 *   `E_KEY_REVOKED`, `E_KEY_EXPIRED`, `E_WEAK_KEY`, `E_SIG_MALLEABLE`, `E_SIG_INVALID`, `E_PAYLOAD`,
 *   `E_AUDIENCE`, `E_NOT_YET`, `E_EXPIRED`, `E_LIFETIME`, `E_LOG_FORK`, `E_SCOPE`
 */
export function verifyCancel(verifier: Verifier, input: VerifyCancelInput): VerifiedCancel {
  const { authority, nowSeconds, node } = input;
  const envelope =
    input.envelope instanceof Uint8Array ? parseEnvelope(input.envelope) : input.envelope;
  const records = new Map<string, KeyRecord>();
  const opened = openEnvelope(verifier, envelope, 'cancel');
  const {
    digest,
    keyids,
    payload: bytes,
  } = verifyOpened(verifier, opened, (keyid) => {
    const record = findUsableKey(authority, keyid, nowSeconds);
    if (record !== undefined) records.set(keyid, record);
    return record?.publicKey;
  });
  const payload = parseJsonAs(CancelPayload, bytes, {
    code: 'E_PAYLOAD',
    what: `the cancel payload ${digest}`,
    integersOnly: true,
  });
  if (node !== undefined) checkAudience(payload, node);
  if (nowSeconds !== undefined) checkTime(payload, nowSeconds);
  checkFork(payload, authority);
  const grants = [...records.values()].map(({ grant }) => grant);
  if (!grants.some((grant) => isInScope(payload, grant))) {
    throw new HyphaError('E_SCOPE', `no signer of ${payload.id} may act in ${payload.realm}`, {
      where: { path: 'signatures' },
    });
  }
  const mayCancelAny = grants.some((grant) => isInScope(payload, grant) && hasCancelPower(grant));
  return { payload, digest, envelope, keyids, mayCancelAny };
}

/**
 * Throws `E_SCOPE` unless a signer of the cancel signed the target too, or may cancel what others signed.
 * @param target who signed the script envelope, and for which realm
 */
export function assertMayCancel(
  cancel: Pick<VerifiedCancel, 'keyids' | 'mayCancelAny'> & {
    readonly payload: Pick<CancelPayload, 'id' | 'realm'>;
  },
  target: { readonly realm: string; readonly keyids: readonly string[] },
): void {
  const { payload, keyids, mayCancelAny } = cancel;
  if (payload.realm !== target.realm) {
    throw new HyphaError(
      'E_SCOPE',
      `the cancel is for realm ${payload.realm}, its target is in ${target.realm}`,
      { where: { path: 'realm' } },
    );
  }
  if (mayCancelAny || target.keyids.some((keyid) => keyids.includes(keyid))) return;
  throw new HyphaError('E_SCOPE', `the signer of ${payload.id} may not cancel what others signed`, {
    where: { path: 'target' },
    hint: `sign with the key that signed the script, an admin key, or one granted the capability ${CANCEL_CAPABILITY}`,
  });
}

function checkAudience({ aud, id }: CancelPayload, node: ScriptTarget): void {
  if (aud.nodes.includes(node.id)) return;
  throw new HyphaError('E_AUDIENCE', `cancel ${id} is not addressed to ${node.id}`, {
    where: { path: 'aud.nodes' },
  });
}

function checkTime({ id, iat, exp }: CancelPayload, nowSeconds: number): void {
  if (iat > nowSeconds + LIMITS.skewSeconds) {
    throw new HyphaError('E_NOT_YET', `cancel ${id} has iat ${iat}, now is ${nowSeconds}`, {
      where: { path: 'iat' },
    });
  }
  if (nowSeconds >= exp) {
    throw new HyphaError('E_EXPIRED', `cancel ${id} expired at ${exp}, now is ${nowSeconds}`, {
      where: { path: 'exp' },
      hint: 'sign again: hypha run cancel',
    });
  }
  if (exp - iat > LIMITS.lifetimeSecondsMax) {
    throw new HyphaError(
      'E_LIFETIME',
      `cancel ${id} is valid for ${exp - iat} s: at most ${LIMITS.lifetimeSecondsMax}`,
      { where: { path: 'exp' } },
    );
  }
}

/** A receiver that knows less than the signer goes on: a cancel takes nothing that was not granted. */
function checkFork({ authority: seen }: CancelPayload, authority: Authority): void {
  const ours = authority.hashAt(seen.seq);
  if (ours === undefined || ours === seen.head) return;
  throw new HyphaError(
    'E_LOG_FORK',
    `the signer saw ${seen.head} as authority update ${seen.seq}, here it is ${ours}`,
    { where: { path: 'authority.head' }, details: { seq: seen.seq, signer: seen.head, ours } },
  );
}

function isInScope({ realm, aud }: CancelPayload, grant: Grant): boolean {
  const signs = grant.role === 'operator' || grant.role === 'admin';
  const hasRealm = findUncovered(grant.realms, [realm]) === undefined;
  return signs && hasRealm && findUncovered(grant.nodes, aud.nodes) === undefined;
}

/** `*` holds every capability that a script can ask for, and this one too. */
function hasCancelPower(grant: Grant): boolean {
  return grant.role === 'admin' || findUncovered(grant.caps, [CANCEL_CAPABILITY]) === undefined;
}
