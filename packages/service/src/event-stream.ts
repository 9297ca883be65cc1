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

/** Comment lines keep a quiet stream alive through proxies; clients give up after three missed ones. */
export const HEARTBEAT_MS = 15_000;
/** A client that takes nothing for this long is cut off; it resumes by `Last-Event-ID`. */
const STALLED_MS_MAX = 30_000;

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
): Promise<void> {
  response.writeHead(200, {
    'content-type': 'text/event-stream',
    'cache-control': 'no-store',
    'x-accel-buffering': 'no',
  });
  response.write(':\n\n');
  const heartbeat = setInterval(() => {
    if (!response.writableNeedDrain) response.write(':\n\n');
  }, HEARTBEAT_MS);
  heartbeat.unref();
  const iterator = events[Symbol.asyncIterator]();
  const ended = abortion(signal);
  try {
    for (;;) {
      const next = await Promise.race([iterator.next(), ended.promise]);
      if (next === undefined || next.done === true) return;
      if (!response.write(formatEvent(next.value))) await drained(response, signal);
      if (signal.aborted) return;
    }
  } finally {
    clearInterval(heartbeat);
    ended.release();
    // Not awaited: a source that waits for something only learns by the signal that it need not.
    iterator.return?.()?.catch(() => undefined);
    response.end();
  }
}

async function drained(response: ServerResponse, signal: AbortSignal): Promise<void> {
  const deadline = AbortSignal.timeout(STALLED_MS_MAX);
  try {
    await once(response, 'drain', { signal: AbortSignal.any([signal, deadline]) });
  } catch {
    response.destroy();
  }
}

function abortion(signal: AbortSignal): { promise: Promise<undefined>; release: () => void } {
  const { promise, resolve } = Promise.withResolvers<undefined>();
  const abort = () => resolve(undefined);
  if (signal.aborted) abort();
  signal.addEventListener('abort', abort, { once: true });
  return { promise, release: () => signal.removeEventListener('abort', abort) };
}

/**
 * For sources that push: holds at most `max` events. One more ends the stream instead of growing or
 * dropping, and the client comes back for what it has missed.
 */
export class EventQueue implements AsyncIterable<ServerEvent> {
  readonly #max: number;
  readonly #events: ServerEvent[] = [];
  #wake: (() => void) | undefined;
  #ended = false;

  constructor(max: number) {
    this.#max = max;
  }

  /** False when the queue was full or ended: stop pushing. */
  push(event: ServerEvent): boolean {
    if (this.#ended) return false;
    if (this.#events.length >= this.#max) {
      this.#events.length = 0;
      this.end();
      return false;
    }
    this.#events.push(event);
    this.#wake?.();
    return true;
  }

  /** What is queued is still delivered. */
  end(): void {
    this.#ended = true;
    this.#wake?.();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<ServerEvent, void, undefined> {
    try {
      for (;;) {
        const event = this.#events.shift();
        if (event !== undefined) {
          yield event;
        } else if (this.#ended) {
          return;
        } else {
          await new Promise<void>((resolve) => {
            this.#wake = resolve;
          });
        }
      }
    } finally {
      this.#ended = true;
    }
  }
}
