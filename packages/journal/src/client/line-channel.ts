import type { Socket } from 'node:net';
import { LINE_BYTES_MAX } from './socket-protocol.ts';

const NEWLINE = 0x0a;

interface LineHandlers {
  /** Any JSON value: still to be parsed. */
  readonly onValue: (value: unknown) => void;
  /** Once, whatever ended it. Nothing comes after. */
  readonly onClose: (error: Error | undefined) => void;
}

/** JSON values over a socket, one a line. A line that is too long or not JSON ends the connection. */
export class LineChannel {
  readonly #socket: Socket;
  readonly #onValue: LineHandlers['onValue'];
  #parts: Buffer[] = [];
  #partBytes = 0;
  #error: Error | undefined;

  constructor(socket: Socket, handlers: LineHandlers) {
    this.#socket = socket;
    this.#onValue = handlers.onValue;
    socket.on('data', (chunk: Buffer) => this.#take(chunk));
    socket.on('error', (error) => {
      this.#error ??= error;
    });
    socket.on('close', () => handlers.onClose(this.#error));
  }

  /** Dropped when the connection is gone: its end is what tells. */
  send(value: unknown): void {
    this.sendLine(JSON.stringify(value));
  }

  /** What is sent in one turn of the event loop crosses over together: a call to the system each costs more. */
  sendLine(line: string): void {
    if (!this.#socket.writable) return;
    if (this.#socket.writableCorked === 0) {
      this.#socket.cork();
      process.nextTick(() => this.#socket.uncork());
    }
    this.#socket.write(`${line}\n`);
  }

  /** Sends what waits, then ends. */
  end(): void {
    this.#socket.end();
  }

  destroy(error?: Error): void {
    this.#error ??= error;
    this.#socket.destroy();
  }

  #take(chunk: Buffer): void {
    let rest = chunk;
    for (;;) {
      const end = rest.indexOf(NEWLINE);
      if (end < 0) break;
      const line = Buffer.concat([...this.#parts, rest.subarray(0, end)]);
      this.#parts = [];
      this.#partBytes = 0;
      rest = rest.subarray(end + 1);
      if (!this.#deliver(line)) return;
    }
    if (rest.length === 0) return;
    this.#parts.push(rest);
    this.#partBytes += rest.length;
    if (this.#partBytes > LINE_BYTES_MAX) this.destroy(new Error('the peer sent an endless line'));
  }

  /** False once the connection is over. */
  #deliver(line: Buffer): boolean {
    if (this.#socket.destroyed) return false;
    let value: unknown;
    try {
      value = JSON.parse(line.toString('utf8'));
    } catch (cause) {
      this.destroy(new Error('the peer sent a line that is not JSON', { cause }));
      return false;
    }
    this.#onValue(value);
    return !this.#socket.destroyed;
  }
}
