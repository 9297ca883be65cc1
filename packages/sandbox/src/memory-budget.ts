interface Claim {
  readonly bytes: number;
  readonly grant: () => void;
}

/** Memory that may be promised; whoever asks for more than is left waits, in order. */
export class MemoryBudget {
  readonly #bytesMax: number;
  #takenBytes = 0;
  readonly #waiting: Claim[] = [];

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  /** One that asks for more than there is at all gets it alone. Rejects with the signal's reason when aborted. */
  async take(bytes: number, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (this.#waiting.length === 0 && this.#fits(bytes)) {
      this.#takenBytes += bytes;
      return;
    }
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const claim = { bytes, grant: resolve };
    this.#waiting.push(claim);
    const onAbort = () => {
      const index = this.#waiting.indexOf(claim);
      if (index < 0) return;
      this.#waiting.splice(index, 1);
      reject(signal.reason);
      this.#grant();
    };
    signal.addEventListener('abort', onAbort, { once: true });
    await promise.finally(() => signal.removeEventListener('abort', onAbort));
  }

  give(bytes: number): void {
    this.#takenBytes -= bytes;
    this.#grant();
  }

  #fits(bytes: number): boolean {
    return this.#takenBytes === 0 || this.#takenBytes + bytes <= this.#bytesMax;
  }

  #grant(): void {
    for (let next = this.#waiting[0]; next && this.#fits(next.bytes); next = this.#waiting[0]) {
      this.#waiting.shift();
      this.#takenBytes += next.bytes;
      next.grant();
    }
  }
}
