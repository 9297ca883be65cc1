import { HyphaError } from '@hypha/protocol';
import { addressKey } from './address-key.ts';
import type { ListenerConfig } from './listener.ts';
import { overloaded } from './request-turns.ts';
import { TokenBuckets } from './token-buckets.ts';

/** A bucket holds what comes in this many seconds. */
const BURST_SECONDS = 2;

/**
 * How much one client may ask: by address before anything of a request is looked at, so that bad signatures
 * cost their sender more than us, and by key once its signature holds, wherever it asks from.
 */
export class RequestLimits {
  readonly #addresses: TokenBuckets;
  readonly #keys: TokenBuckets;
  readonly #atOnceMax: number;
  readonly #nowMs: () => number;
  #atOnce = 0;

  /** @param nowMs monotonic */
  constructor(config: ListenerConfig, nowMs: () => number = () => performance.now()) {
    this.#addresses = bucketsOf(config.ratePerAddress);
    this.#keys = bucketsOf(config.ratePerKey);
    this.#atOnceMax = config.requestsAtOnce;
    this.#nowMs = nowMs;
  }

  /** Throws `E_RATE`. */
  checkAddress(address: string): void {
    const key = addressKey(address);
    refuseOver(this.#addresses.take(key, this.#nowMs()), `address ${key}`);
  }

  /** Throws `E_RATE`. */
  checkKey(keyid: string): void {
    refuseOver(this.#keys.take(keyid, this.#nowMs()), `key ${keyid}`);
  }

  /** Runs `answer` unless too many are being answered. Throws `E_UNAVAILABLE`. */
  async answer<T>(answer: () => Promise<T>): Promise<T> {
    if (this.#atOnce >= this.#atOnceMax) {
      throw overloaded(`${this.#atOnceMax} are being answered`);
    }
    this.#atOnce++;
    try {
      return await answer();
    } finally {
      this.#atOnce--;
    }
  }
}

function bucketsOf(perSecond: number): TokenBuckets {
  return new TokenBuckets({ perSecond, burst: perSecond * BURST_SECONDS });
}

function refuseOver(retryAfterMs: number, who: string): void {
  if (retryAfterMs === 0) return;
  throw new HyphaError('E_RATE', `too many requests from ${who}`, { details: { retryAfterMs } });
}
