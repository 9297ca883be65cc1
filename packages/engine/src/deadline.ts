import type { HyphaError } from '@hypha/protocol';
import { OVER } from './over.ts';
import type { Clock } from './ports.ts';
import { isWayOut } from './saga-error.ts';

export interface Deadline {
  readonly clock: Clock;
  /** Ends the work too. Absent: nothing but the deadline does. */
  readonly signal?: AbortSignal;
  /** `Infinity`: no deadline. */
  readonly ms: number;
  readonly error: () => HyphaError;
}

/**
 * Does work under a signal that is aborted after a while, or with another one. What the work says after that is
 * not believed: then it throws `error`, or what the work threw when it was the other signal.
 */
export async function withDeadline<T>(
  { clock, signal, ms, error }: Deadline,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const either = new AbortController();
  const over = new AbortController();
  const onAbort = () => either.abort(signal?.reason);
  let isLate = false;
  const onLate = () => {
    if (either.signal.aborted) return;
    isLate = true;
    either.abort(error());
  };
  if (signal?.aborted === true) onAbort();
  else signal?.addEventListener('abort', onAbort, { once: true });
  if (ms < Number.POSITIVE_INFINITY) clock.sleep(ms, over.signal).then(onLate, () => undefined);
  try {
    return await work(either.signal);
  } catch (thrown) {
    throw isLate && !isWayOut(thrown) ? either.signal.reason : thrown;
  } finally {
    signal?.removeEventListener('abort', onAbort);
    over.abort(OVER);
  }
}
