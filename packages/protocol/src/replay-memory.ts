import type { Verifier } from './crypto-port.ts';
import type { Envelope } from './dsse.ts';
import { ScriptPayload } from './script-payload.ts';
import { openEnvelope } from './verify-envelope.ts';
import { parseJsonAs } from './wire.ts';

/**
 * What a receiver remembers of the envelopes it accepted, kept in its durable store and asked before it
 * accepts another. Inserting is the caller's, in the transaction that accepts. Synchronous: read the rows
 * of `peekReplayKeys` first when the store is not.
 */
export interface ReplayMemory {
  /** Whether an envelope with this digest was accepted: then it is the same work again (design §8). */
  hasDigest(digest: string): boolean;
  /** Digest of the envelope that used this payload id. */
  findId(id: string): string | undefined;
  /** Digest of the envelope in which this key used this nonce. */
  findNonce(keyid: string, nonce: string): string | undefined;
}

/** What a store is asked about. Unverified: fit for a lookup and nothing else. */
export interface ReplayKeys {
  readonly digest: string;
  readonly id: string;
  readonly nonce: string;
  readonly keyids: readonly string[];
}

/** Throws what `verifyScript` would throw for an envelope that cannot be read. */
export function peekReplayKeys(verifier: Verifier, envelope: Envelope): ReplayKeys {
  const { digest, payload, signatures } = openEnvelope(verifier, envelope, 'script');
  const { id, nonce } = parseJsonAs(ScriptPayload, payload, {
    code: 'E_PAYLOAD',
    what: 'the script payload',
    integersOnly: true,
  });
  return { digest, id, nonce, keyids: signatures.map(({ keyid }) => keyid) };
}

/** `ReplayMemory` of rows read beforehand. */
export function replayMemoryOf(
  rows: readonly {
    readonly digest: string;
    readonly id: string;
    readonly nonce: string;
    readonly keyids: readonly string[];
  }[],
): ReplayMemory {
  const digests = new Set(rows.map(({ digest }) => digest));
  const ids = new Map(rows.map(({ id, digest }) => [id, digest]));
  const nonces = new Map(
    rows.flatMap(({ keyids, nonce, digest }) =>
      keyids.map((keyid) => [`${keyid} ${nonce}`, digest] as const),
    ),
  );
  return {
    hasDigest: (digest) => digests.has(digest),
    findId: (id) => ids.get(id),
    findNonce: (keyid, nonce) => nonces.get(`${keyid} ${nonce}`),
  };
}
