import { setTimeout as delay } from 'node:timers/promises';
import { HyphaError } from '@hypha/protocol';

/** A service may be away for as long as its restarts are backed off. */
const ANSWER_MS_MAX = 120_000;
const POLL_MS = 200;

/** Asks again while nobody answers: a read, or an envelope, which is the same work however often it is sent. */
export async function insist<T>(signal: AbortSignal, ask: () => Promise<T>): Promise<T> {
  const deadline = performance.now() + ANSWER_MS_MAX;
  for (;;) {
    signal.throwIfAborted();
    try {
      return await ask();
    } catch (error) {
      const isFinal =
        error instanceof HyphaError && !error.retryable && error.code !== 'E_UNAVAILABLE';
      if (isFinal || performance.now() > deadline) throw error;
    }
    await delay(POLL_MS);
  }
}
