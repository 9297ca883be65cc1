import { setTimeout as delay } from 'node:timers/promises';
import { HyphaError } from '@hypha/protocol';
import { type ClientClock, systemClock } from './clock.ts';
import type { StreamEvent } from './event-stream.ts';
import type { HyphaClient, Query } from './hypha-client.ts';

const DELAY_MS_MIN = 200;
const DELAY_MS_MAX = 10_000;

export interface FollowOptions {
  readonly path: string;
  readonly query?: Query;
  readonly lastEventId?: string;
  readonly signal: AbortSignal;
  /** Whether to go on after this error. Default: when it is retryable. */
  readonly persist?: (error: HyphaError) => boolean;
  /** Told of every loss: the error, or undefined when the server ended the stream. */
  readonly onLost?: (error: HyphaError | undefined, delayMs: number) => void;
  readonly clock?: ClientClock;
}

/**
 * A stream that comes back: reconnects after every loss with back-off and jitter, resuming after the last
 * event it yielded, until the signal aborts (which ends it without an error). It also reconnects after the
 * server ended a stream; a caller that knows the last event stops there.
 */
export async function* followStream(
  client: Pick<HyphaClient, 'stream'>,
  options: FollowOptions,
): AsyncGenerator<StreamEvent, void, undefined> {
  const { path, query, signal } = options;
  const persist = options.persist ?? ((error) => error.retryable);
  const clock = options.clock ?? systemClock;
  let lastEventId = options.lastEventId;
  let failures = 0;
  while (!signal.aborted) {
    let loss: HyphaError | undefined;
    try {
      const request = {
        path,
        signal,
        ...(query === undefined ? {} : { query }),
        ...(lastEventId === undefined ? {} : { lastEventId }),
      };
      for await (const event of client.stream(request)) {
        failures = 0;
        if (event.id !== '') lastEventId = event.id;
        yield event;
      }
    } catch (error) {
      if (!(error instanceof HyphaError) || !persist(error)) throw error;
      loss = error;
    }
    if (signal.aborted) return;
    const ceilingMs = Math.min(DELAY_MS_MAX, DELAY_MS_MIN * 2 ** failures++);
    const delayMs = ceilingMs / 2 + clock.jitterMs(ceilingMs / 2);
    options.onLost?.(loss, delayMs);
    // Rejects only when the signal aborts, and then the loop ends.
    await delay(delayMs, undefined, { signal }).catch(() => undefined);
  }
}
