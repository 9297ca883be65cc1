import type { Authority } from './authority.ts';
import { isInTime, type KeyRecord } from './authority-state.ts';
import { HyphaError } from './hypha-error.ts';

/**
 * A key that may still be used, or undefined when the authority never granted it anything.
 * @param nowSeconds also check the grant's validity
 * @throws HyphaError `E_KEY_REVOKED`, `E_KEY_EXPIRED`
 */
export function findUsableKey(
  authority: Authority,
  keyid: string,
  nowSeconds?: number,
): KeyRecord | undefined {
  const record = authority.findKey(keyid);
  if (record === undefined) return undefined;
  const { grant, status, revokedAtSeq } = record;
  if (status === 'revoked') {
    throw new HyphaError(
      'E_KEY_REVOKED',
      `key ${grant.name} (${keyid}) was revoked by authority update ${revokedAtSeq}`,
    );
  }
  if (nowSeconds !== undefined && !isInTime(grant, nowSeconds)) {
    throw new HyphaError(
      'E_KEY_EXPIRED',
      `key ${grant.name} (${keyid}) is valid from ${grant.notBefore} to ${grant.notAfter}, now is ${nowSeconds}`,
    );
  }
  return record;
}
