import type { Authority } from './authority.ts';
import type { Grant } from './authority-payload.ts';
import { isInTime } from './authority-state.ts';
import type { Verifier } from './crypto-port.ts';
import type { Envelope } from './dsse.ts';
import { HyphaError } from './hypha-error.ts';
import { LIMITS } from './limits.ts';
import { AdmissionPayload } from './node-payloads.ts';
import { findUncovered } from './scope.ts';
import { findUsableKey } from './usable-key.ts';
import { verifyEnvelope } from './verify-envelope.ts';
import { parseJsonAs } from './wire.ts';

/**
 * `accept`: by whoever lets the node in now, so keys and dates are judged against now. `audit`: of a past
 * admission; the key must have been an admin's and valid at `iat`, whatever became of it later.
 */
export type AdmissionProfile =
  | { readonly profile: 'accept'; readonly nowSeconds: number }
  | { readonly profile: 'audit' };

export interface VerifiedAdmission {
  readonly payload: AdmissionPayload;
  readonly digest: string;
  readonly envelope: Envelope;
  readonly keyids: readonly string[];
  /** The admin's. */
  readonly grant: Grant;
}

/**
 * An admission is good when one admin signed it and serves every realm it names.
 * @throws HyphaError the codes of `verifyEnvelope`, `E_KEY_REVOKED`, `E_KEY_EXPIRED`, `E_PAYLOAD`, `E_SCOPE`,
 *   `E_LIFETIME`, `E_NOT_YET`, and `E_TOKEN` when it has expired
 */
export function verifyAdmission(
  verifier: Verifier,
  input: { readonly envelope: Envelope; readonly authority: Authority } & AdmissionProfile,
): VerifiedAdmission {
  const { envelope, authority } = input;
  const nowSeconds = input.profile === 'accept' ? input.nowSeconds : undefined;
  const {
    payload: bytes,
    digest,
    keyids,
  } = verifyEnvelope(verifier, {
    envelope,
    kind: 'admission',
    keys: (keyid) => {
      if (nowSeconds === undefined) return authority.findKey(keyid)?.publicKey;
      return findUsableKey(authority, keyid, nowSeconds)?.publicKey;
    },
  });
  const payload = parseJsonAs(AdmissionPayload, bytes, {
    code: 'E_PAYLOAD',
    what: `the admission ${digest}`,
    integersOnly: true,
  });
  const grants = keyids.flatMap((keyid) => authority.findKey(keyid)?.grant ?? []);
  const grant = grants.find(
    ({ role, realms }) => role === 'admin' && findUncovered(realms, payload.realms) === undefined,
  );
  if (grant === undefined) {
    throw new HyphaError(
      'E_SCOPE',
      `no signer of the admission of ${payload.name} is an admin of ${payload.realms.join(', ')}`,
      { where: { path: 'realms' } },
    );
  }
  checkDates(payload, grant, nowSeconds);
  return { payload, digest, envelope, keyids, grant };
}

function checkDates(payload: AdmissionPayload, grant: Grant, nowSeconds: number | undefined): void {
  const { name, iat, exp, tokenHash } = payload;
  // What opens the door to any machine that shows it must not lie about for long.
  if (tokenHash !== undefined && exp - iat > LIMITS.joinTokenSecondsMax) {
    throw new HyphaError(
      'E_LIFETIME',
      `the join token of ${name} is valid for ${exp - iat} s: at most ${LIMITS.joinTokenSecondsMax}`,
      { where: { path: 'exp' }, hint: 'make a new one: hypha node add NAME' },
    );
  }
  if (!isInTime(grant, iat)) {
    throw new HyphaError(
      'E_KEY_EXPIRED',
      `key ${grant.name} was outside its validity when it admitted ${name}`,
      { where: { path: 'iat' } },
    );
  }
  if (nowSeconds === undefined) return;
  if (iat > nowSeconds + LIMITS.skewSeconds) {
    throw new HyphaError(
      'E_NOT_YET',
      `the admission of ${name} is dated ${iat}, now is ${nowSeconds}`,
      {
        where: { path: 'iat' },
      },
    );
  }
  if (nowSeconds >= exp) {
    throw new HyphaError('E_TOKEN', `the admission of ${name} expired at ${exp}`, {
      where: { path: 'exp' },
    });
  }
}
