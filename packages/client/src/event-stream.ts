import { HyphaError, LIMITS } from '@hypha/protocol';

/** One server-sent event. */
export interface StreamEvent {
  /** Sticky, as the standard has it: the id of this event or of the last one that had any. */
  readonly id: string;
  /** `message` when the sender named none. */
  readonly event: string;
  readonly data: string;
}

/** Characters of one event; a larger one is a broken peer. A submission or a journal page fits. */
const EVENT_CHARS_MAX = LIMITS.bodyBytesMax;

/**
 * Incremental reader of `text/event-stream` (WHATWG HTML §9.2): chunks may break anywhere, also inside a
 * character or between CR and LF. An event that is not ended by an empty line is dropped, as the standard
 * says; the sender repeats it after `Last-Event-ID`.
 */
export class EventStreamParser {
  readonly #decoder = new TextDecoder('utf-8', { fatal: true });
  #line = '';
  #afterCarriageReturn = false;
  #id: string;
  #event = '';
  #data: string[] = [];
  #dataChars = 0;

  constructor(lastEventId = '') {
    this.#id = lastEventId;
  }

  /** Events that this chunk completed. Throws `E_UNAVAILABLE` on text that is no event stream. */
  push(chunk: Uint8Array): StreamEvent[] {
    let text: string;
    try {
      text = this.#decoder.decode(chunk, { stream: true });
    } catch (cause) {
      throw new HyphaError('E_UNAVAILABLE', 'cannot read the event stream: not UTF-8', { cause });
    }
    if (text === '') return [];
    const events: StreamEvent[] = [];
    const start = this.#afterCarriageReturn && text.startsWith('\n') ? 1 : 0;
    this.#afterCarriageReturn = text.endsWith('\r');
    const lines = text.slice(start).split(/\r\n|\n|\r/);
    const rest = lines.pop() ?? '';
    for (const line of lines) {
      const event = this.#endLine(this.#line + line);
      this.#line = '';
      if (event !== undefined) events.push(event);
    }
    this.#line += rest;
    if (this.#line.length + this.#dataChars > EVENT_CHARS_MAX) {
      throw new HyphaError(
        'E_UNAVAILABLE',
        `cannot read the event stream: an event is over ${EVENT_CHARS_MAX} characters`,
      );
    }
    return events;
  }

  #endLine(line: string): StreamEvent | undefined {
    if (line === '') return this.#endEvent();
    const colon = line.indexOf(':');
    if (colon === 0) return undefined;
    const field = colon === -1 ? line : line.slice(0, colon);
    const value = colon === -1 ? '' : line.slice(colon + 1).replace(/^ /, '');
    if (field === 'data') {
      this.#data.push(value);
      this.#dataChars += value.length + 1;
    } else if (field === 'event') {
      this.#event = value;
    } else if (field === 'id' && !value.includes('\0')) {
      this.#id = value;
    }
    return undefined;
  }

  #endEvent(): StreamEvent | undefined {
    const data = this.#data;
    const event = this.#event === '' ? 'message' : this.#event;
    this.#data = [];
    this.#dataChars = 0;
    this.#event = '';
    return data.length === 0 ? undefined : { id: this.#id, event, data: data.join('\n') };
  }
}
