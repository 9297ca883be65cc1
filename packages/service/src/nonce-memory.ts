/** Nonces remembered at most, of all keys together. About 100 bytes each. */
const NONCES_MAX = 200_000;

/**
 * Which request nonces were used, until the signatures that carried them expire. Only nonces of verified
 * signatures enter, so a stranger cannot fill it. It is not kept over a restart: a request repeated within
 * the minute after one is held off by what the request itself says (seq, digest), not by this memory.
 */
export class NonceMemory {
  readonly #max: number;
  /** keyid and nonce → end of its validity, seconds. In the order they came. */
  readonly #used = new Map<string, number>();

  constructor(max: number = NONCES_MAX) {
    this.#max = max;
  }

  /** `full` refuses: forgetting a nonce that could still be replayed would be a hole. */
  use(keyid: string, nonce: string, expires: number, nowSeconds: number): 'new' | 'used' | 'full' {
    const key = `${keyid} ${nonce}`;
    if (this.#used.has(key)) return 'used';
    this.#forget(nowSeconds);
    if (this.#used.size >= this.#max) return 'full';
    this.#used.set(key, expires);
    return 'new';
  }

  /** Lifetimes are nearly equal, so those that came first expire first: the sweep stops early. */
  #forget(nowSeconds: number): void {
    for (const [key, expires] of this.#used) {
      if (expires >= nowSeconds) return;
      this.#used.delete(key);
    }
  }
}
