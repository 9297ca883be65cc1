/**
 * What `protocol` needs of a machine's cryptography. Synchronous: verification is one pure function
 * with one verdict. Node's implementation is `@hypha/protocol/node`; a browser brings its own.
 */
export interface Verifier {
  sha256(bytes: Uint8Array): Uint8Array;
  /**
   * Plain RFC 8032 Ed25519. The stricter rules (S < L, canonical encodings, no small-order key) are
   * checked by `ed25519.ts` before this is asked. Never throws: anything odd is `false`.
   */
  verifyEd25519(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean;
}

/** A private key that can sign. Only `protocol/node` and tests make one. */
export interface Signer {
  /** Raw 32-byte Ed25519 public key. */
  readonly publicKey: Uint8Array;
  readonly keyid: string;
  sign(message: Uint8Array): Uint8Array;
}
