import { randomBytes, randomInt } from 'node:crypto';

/** Time and randomness of the client, in one place so that tests can hold them still. */
export interface ClientClock {
  /** Wall clock, epoch milliseconds: signatures carry it. */
  nowMs(): number;
  /** 16 fresh random bytes, base64url. */
  nonce(): string;
  /** Uniform in [0, belowMs): spreads reconnects. */
  jitterMs(belowMs: number): number;
}

export const systemClock: ClientClock = {
  nowMs: () => Date.now(),
  nonce: () => randomBytes(16).toString('base64url'),
  jitterMs: (belowMs) => randomInt(Math.max(1, Math.floor(belowMs))),
};
