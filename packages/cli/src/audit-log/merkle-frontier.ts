import { EMPTY_ROOT, nodeHash, type Verifier } from '@hypha/protocol';

/**
 * The Merkle tree of RFC 9162 as far as it has been read: only the roots of the complete subtrees that the
 * leaves so far form, so memory grows with the logarithm of their number.
 */
export class MerkleFrontier {
  readonly #verifier: Verifier;
  /** By level: root of the subtree of 2^level leaves that has no right sibling yet. */
  readonly #subtrees: (Uint8Array | undefined)[] = [];
  #size = 0;

  constructor(verifier: Verifier) {
    this.#verifier = verifier;
  }

  get size(): number {
    return this.#size;
  }

  append(leafHash: Uint8Array): void {
    let hash = leafHash;
    let level = 0;
    for (; this.#subtrees[level] !== undefined; level++) {
      hash = nodeHash(this.#verifier, this.#subtrees[level] ?? hash, hash);
      this.#subtrees[level] = undefined;
    }
    this.#subtrees[level] = hash;
    this.#size++;
  }

  /** Over all leaves so far. */
  root(): Uint8Array {
    const [first = EMPTY_ROOT, ...larger] = this.#subtrees.filter((hash) => hash !== undefined);
    return larger.reduce((right, left) => nodeHash(this.#verifier, left, right), first);
  }
}
