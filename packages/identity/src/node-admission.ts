import {
  type AdmissionPayload,
  type AdmissionProfile,
  type Authority,
  type Envelope,
  HyphaError,
  type Verifier,
  verifyAdmission,
} from '@hypha/protocol';
import type { LedgerPort } from './ledger-port.ts';
import { IDENTITY_LIMITS as LIMITS } from './limits.ts';

interface AdmissionDeps {
  readonly keys: { readonly nodeId: string };
  readonly verifier: Verifier;
}

/** What an admin signed, whether or not it is still good. Throws the codes of `verifyAdmission`. */
export function auditAdmission(
  { verifier }: AdmissionDeps,
  envelope: Envelope,
  authority: Authority,
): AdmissionPayload {
  return verifyAdmission(verifier, { envelope, authority, profile: 'audit' }).payload;
}

/**
 * The newest one in the log that an admin signed for this very key.
 * @param options.nowSeconds only one that is still good
 */
export async function findAdmission(
  { keys, verifier }: AdmissionDeps,
  { ledger, authority }: { readonly ledger: LedgerPort; readonly authority: Authority },
  { nowSeconds, signal }: { readonly nowSeconds?: number; readonly signal: AbortSignal },
): Promise<Envelope | undefined> {
  const node = keys.nodeId;
  const profile: AdmissionProfile =
    nowSeconds === undefined ? { profile: 'audit' } : { profile: 'accept', nowSeconds };
  const isForNode = (envelope: Envelope) => {
    try {
      return verifyAdmission(verifier, { envelope, authority, ...profile }).payload.node === node;
    } catch (error) {
      // Expired, of a revoked admin, or not what the ledger says it is: as good as not there.
      if (error instanceof HyphaError) return false;
      throw error;
    }
  };
  let found: Envelope | undefined;
  let cursor: string | undefined;
  for (let page = 0; page < LIMITS.admissionPages; page++) {
    const query = { kind: 'admission', node, ...(cursor === undefined ? {} : { cursor }) } as const;
    const { items, nextCursor } = await ledger.listEntries(query, { signal });
    found = items.findLast(({ envelope }) => isForNode(envelope))?.envelope ?? found;
    if (nextCursor === null) break;
    cursor = nextCursor;
  }
  return found;
}
