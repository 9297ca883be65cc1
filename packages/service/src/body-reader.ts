import type { Readable } from 'node:stream';
import { HyphaError } from '@hypha/protocol';
import { overloaded } from './request-turns.ts';

/** Bytes of bodies being received, of all clients together: nobody has signed for them yet. */
const RECEIVING_BYTES_MAX = 256 * 1024 * 1024;

/** Receives bodies whole, and bounds what those that are still on their way take of the memory. */
export class BodyReader {
  readonly #max: number;
  #received = 0;

  constructor(max: number = RECEIVING_BYTES_MAX) {
    this.#max = max;
  }

  /**
   * Rejects with `E_SIZE`, `E_UNAVAILABLE` when too much is being received, or what the stream failed with.
   * What still comes then is let go.
   */
  async read(body: Readable, bytesMax: number): Promise<Buffer> {
    const chunks: Buffer[] = [];
    let size = 0;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const take = (chunk: Buffer): void => {
      size += chunk.length;
      this.#received += chunk.length;
      chunks.push(chunk);
      if (size > bytesMax) reject(tooLarge(bytesMax));
      else if (this.#received > this.#max) reject(overloaded('too many bodies are on their way'));
    };
    const cutOff = (): void => reject(new HyphaError('E_REQUEST', 'the body was cut off'));
    body.on('data', take).once('end', resolve).once('error', reject).once('close', cutOff);
    try {
      await promise;
      return Buffer.concat(chunks, size);
    } finally {
      body.off('data', take).off('end', resolve).off('error', reject).off('close', cutOff);
      this.#received -= size;
    }
  }
}

export function tooLarge(bytesMax: number): HyphaError {
  return new HyphaError('E_SIZE', `the body is over ${bytesMax} bytes`);
}
