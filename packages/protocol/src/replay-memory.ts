/**
 * What a receiver remembers of the envelopes it accepted, in its durable store, asked before it accepts
 * another. Inserting is the caller's, in the write that accepts, and has to refuse what came in between.
 * Synchronous, so that verification is one pure function: a caller whose store is not reads it first.
 */
export interface ReplayMemory {
  /** Whether an envelope with this digest was accepted: then it is the same work again (design §8). */
  hasDigest(digest: string): boolean;
  /** Digest of the envelope that used this payload id. */
  findId(id: string): string | undefined;
  /** Digest of the envelope in which this key used this nonce. */
  findNonce(keyid: string, nonce: string): string | undefined;
}
