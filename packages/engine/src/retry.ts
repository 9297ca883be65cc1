import { HyphaError, isHyphaError } from '@hypha/protocol';
import { ENGINE_LIMITS } from './engine-limits.ts';
import { OVER } from './over.ts';
import type { Clock } from './ports.ts';
import { EngineHalt, isWayOut } from './saga-error.ts';

/**
 * Starts a SAL call, unless it was told to stop before (G6), and waits for it. One that goes on regardless could still change the world
 * while the run is undone, so the engine halts and the fence of its process ends the call.
 */
export async function settleCall<T>(
  clock: Clock,
  signal: AbortSignal,
  start: () => Promise<T>,
): Promise<T> {
  signal.throwIfAborted();
  const stuck = Promise.withResolvers<never>();
  const halt = () =>
    stuck.reject(
      new EngineHalt(new HyphaError('E_INTERNAL', 'a SAL call goes on after it was aborted')),
    );
  // Made only for a call that is aborted: there are many, and most are not.
  let over: AbortController | undefined;
  const onAbort = () => {
    over = new AbortController();
    clock.sleep(ENGINE_LIMITS.abortGraceMsMax, over.signal).then(halt, () => undefined);
  };
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    return await Promise.race([start(), stuck.promise]);
  } finally {
    signal.removeEventListener('abort', onAbort);
    over?.abort(OVER);
  }
}

export interface RetryOptions {
  readonly clock: Clock;
  /** Ends the call in flight and the wait between calls. */
  readonly signal: AbortSignal;
  readonly attemptsMax: number;
  readonly totalMsMax: number;
  readonly isRetryable: (error: unknown) => boolean;
  readonly onFault: (attempt: number, error: unknown) => void;
}

/** Errors that say a later try may succeed. */
export function isRetryable(error: unknown): boolean {
  return isHyphaError(error) && error.retryable;
}

/** Exponential, with jitter. */
export function delayMsAfter(attempt: number, clock: Clock): number {
  const { tryDelayMsMin, tryDelayMsMax } = ENGINE_LIMITS;
  const ceilingMs = Math.min(tryDelayMsMax, tryDelayMsMin * 2 ** (attempt - 1));
  return ceilingMs * (0.5 + clock.jitter() / 2);
}

/** Calls until it succeeds, with exponential back-off. Throws the last error, and a way out at once. */
export async function callWithRetries<T>(
  options: RetryOptions,
  start: () => Promise<T>,
): Promise<T> {
  const { clock, signal } = options;
  const begunMs = clock.monotonicMs();
  for (let attempt = 1; ; attempt++) {
    try {
      return await settleCall(clock, signal, start);
    } catch (error) {
      if (isWayOut(error) || signal.aborted) throw error;
      options.onFault(attempt, error);
      const delayMs = delayMsAfter(attempt, clock);
      const spentMs = clock.monotonicMs() - begunMs + delayMs;
      const isLast = attempt >= options.attemptsMax || spentMs > options.totalMsMax;
      if (isLast || !options.isRetryable(error)) throw error;
      await clock.sleep(delayMs, signal);
    }
  }
}
