import type { ErrorCode, GuestCall, GuestLog } from '@hypha/protocol';
import { SANDBOX_LIMITS } from '../limits.ts';
import { readPlainJson } from './plain-json.ts';
import type { GuestLimits } from './script-engine.ts';

export interface Fatal {
  readonly code: ErrorCode;
  readonly message: string;
}

/**
 * What a guest did, counted against its limits as it does it. Text in, data out; a string that comes back
 * is why something was refused. Once `fatal` is set the script must be stopped.
 */
export class TurnRecord {
  readonly #limits: GuestLimits;
  #calls: GuestCall[] = [];
  #logs: GuestLog[] = [];
  #callCount = 0;
  #turnCallBytes = 0;
  #outputBytes = 0;
  #fatal: Fatal | undefined;

  constructor(limits: GuestLimits) {
    this.#limits = limits;
  }

  get fatal(): Fatal | undefined {
    return this.#fatal;
  }

  /** Bytes of output still allowed. */
  get outputBytesLeft(): number {
    return this.#limits.outputBytes - this.#outputBytes;
  }

  /** The number of the call, or why it is refused. `args`: JSON text, null when over the bound. */
  addCall(
    verb: string,
    name: string | null,
    args: string | null,
    place?: GuestCall['place'],
  ): number | string {
    const { hostCalls } = this.#limits;
    // One too many goes out: the engine refuses it at its place in the script.
    if (this.#callCount > hostCalls) {
      return this.stop('E_HOST_CALLS', `the script made more than ${hostCalls} calls`);
    }
    if (this.#calls.length >= SANDBOX_LIMITS.turnItemsMax) {
      return this.stop('E_HOST_CALLS', 'the script made too many calls at once');
    }
    if (args === null) return `the arguments are over ${SANDBOX_LIMITS.callBytesMax} bytes of JSON`;
    const json = readPlainJson(args);
    if ('refused' in json) return `the arguments hold ${json.refused}`;
    const bytes = Buffer.byteLength(args) + Buffer.byteLength(JSON.stringify(name));
    if (this.#turnCallBytes + bytes > SANDBOX_LIMITS.turnCallBytesMax) {
      return `the calls made at once hold over ${SANDBOX_LIMITS.turnCallBytesMax} bytes of arguments`;
    }
    this.#turnCallBytes += bytes;
    this.#callCount++;
    const where = place === undefined ? {} : { place };
    this.#calls.push({ call: this.#callCount, verb, name, args: json.value, ...where });
    return this.#callCount;
  }

  /** `message` and `fields` (JSON text) are null when over the bound. */
  addLog(message: string | null, fields: string | null): string | undefined {
    const isFull = this.#logs.length >= SANDBOX_LIMITS.turnItemsMax;
    const isKept =
      message !== null && fields !== null && this.#takeOutput(JSON.stringify(message) + fields);
    if (!isKept || isFull) return this.stop('E_OUTPUT', this.#overOutput());
    if (!message.isWellFormed()) return 'half a surrogate pair in the message';
    const json = readPlainJson(fields);
    if ('refused' in json) return `the fields hold ${json.refused}`;
    this.#logs.push({ message, fields: json.value });
    return undefined;
  }

  /** A returned or exported value, JSON text, null when over the bound. What comes back: what it may not hold. */
  addValue(output: string | null): string | undefined {
    if (output === null || !this.#takeOutput(output)) {
      return this.stop('E_OUTPUT', this.#overOutput());
    }
    const json = readPlainJson(output);
    return 'refused' in json ? json.refused : undefined;
  }

  stop(code: ErrorCode, message: string): string {
    this.#fatal ??= { code, message };
    return message;
  }

  /** What was recorded since the last time. */
  take(): { calls: GuestCall[]; logs: GuestLog[] } {
    const taken = { calls: this.#calls, logs: this.#logs };
    this.#calls = [];
    this.#logs = [];
    this.#turnCallBytes = 0;
    return taken;
  }

  #takeOutput(text: string): boolean {
    this.#outputBytes += Buffer.byteLength(text);
    return this.#outputBytes <= this.#limits.outputBytes;
  }

  #overOutput(): string {
    return `the script logged and returned more than ${this.#limits.outputBytes} bytes`;
  }
}
