import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import { HyphaError } from '@hypha/protocol';

/** One server-sent event. `data` may hold line breaks; `id` and `event` may not. */
export interface ServerEvent {
  /** What the client sends back as `Last-Event-ID`. */
  readonly id?: string;
  readonly event?: string;
  readonly data: string;
}

export interface StreamTiming {
  /** Between comment lines, which keep a quiet stream alive; clients give up after three missed ones. */
  readonly heartbeatMs: number;
  /** A client that takes nothing for this long is cut off; it resumes by `Last-Event-ID`. */
  readonly stalledMsMax: number;
}

export const STREAM_TIMING: StreamTiming = { heartbeatMs: 15_000, stalledMsMax: 30_000 };

/** `text/event-stream` framing of one event (WHATWG HTML §9.2). */
export function formatEvent({ id, event, data }: ServerEvent): string {
  for (const field of [id, event]) {
    if (field !== undefined && /[\r\n\0]/.test(field)) {
      throw new HyphaError('E_INTERNAL', `event field ${JSON.stringify(field)} breaks its line`);
    }
  }
  const lines = data.split(/\r\n|\n|\r/).map((line) => `data: ${line}\n`);
  return `${id === undefined ? '' : `id: ${id}\n`}${event === undefined ? '' : `event: ${event}\n`}${lines.join('')}\n`;
}

/**
 * Writes events as fast as the client reads and no faster: at most one waits in memory beyond the socket's
 * buffer. Resolves when the events end, when the client is gone or stalled, or when `signal` aborts;
 * rejects when the events do.
 */
export async function writeEvents(
  response: ServerResponse,
  events: AsyncIterable<ServerEvent>,
  signal: AbortSignal,
  timing: StreamTiming = STREAM_TIMING,
): Promise<void> {
  response.writeHead(200, {
    'content-type': 'text/event-stream',
    'cache-control': 'no-store',
    'x-accel-buffering': 'no',
  });
  response.write(COMMENT);
  const heartbeat = setInterval(() => {
    if (!response.writableNeedDrain) response.write(COMMENT);
  }, timing.heartbeatMs);
  heartbeat.unref();
  const aborted = Promise.withResolvers<void>();
  const abort = () => aborted.resolve();
  signal.addEventListener('abort', abort, { once: true });
  try {
    // The source may wait for something when the signal aborts; the answer does not wait with it.
    if (!signal.aborted) {
      await Promise.race([pump(response, events, signal, timing.stalledMsMax), aborted.promise]);
    }
  } catch (error) {
    // Not a proper end, so that the client knows to come back.
    response.destroy();
    throw error;
  } finally {
    clearInterval(heartbeat);
    signal.removeEventListener('abort', abort);
    response.end();
  }
}

const COMMENT = ':\n\n';

async function pump(
  response: ServerResponse,
  events: AsyncIterable<ServerEvent>,
  signal: AbortSignal,
  stalledMsMax: number,
): Promise<void> {
  for await (const event of events) {
    if (signal.aborted || response.destroyed) return;
    if (response.write(formatEvent(event))) continue;
    const giveUp = AbortSignal.any([signal, AbortSignal.timeout(stalledMsMax)]);
    try {
      await once(response, 'drain', { signal: giveUp });
    } catch {
      response.destroy();
      return;
    }
  }
}
