/** Buckets kept at most. About 150 bytes each. */
const BUCKETS_MAX = 20_000;

interface Bucket {
  tokens: number;
  /** When `tokens` was right, milliseconds. */
  atMs: number;
}

/**
 * Token buckets by key: `burst` requests at once, `perSecond` in the long run. Of more keys than are kept the
 * one that asked longest ago is forgotten, which lets it burst again.
 */
export class TokenBuckets {
  readonly #perSecond: number;
  readonly #burst: number;
  readonly #max: number;
  /** In the order they asked last. */
  readonly #buckets = new Map<string, Bucket>();

  constructor(options: { perSecond: number; burst: number; max?: number }) {
    this.#perSecond = options.perSecond;
    this.#burst = options.burst;
    this.#max = options.max ?? BUCKETS_MAX;
  }

  /**
   * Takes a token.
   * @param nowMs monotonic
   * @returns 0, or the milliseconds until there is one
   */
  take(key: string, nowMs: number): number {
    const before = this.#buckets.get(key);
    this.#buckets.delete(key);
    const tokens =
      before === undefined
        ? this.#burst
        : Math.min(this.#burst, before.tokens + ((nowMs - before.atMs) / 1000) * this.#perSecond);
    const isThere = tokens >= 1;
    this.#buckets.set(key, { tokens: isThere ? tokens - 1 : tokens, atMs: nowMs });
    if (this.#buckets.size > this.#max) {
      const [oldest = key] = this.#buckets.keys();
      this.#buckets.delete(oldest);
    }
    return isThere ? 0 : Math.ceil(((1 - tokens) / this.#perSecond) * 1000);
  }
}
