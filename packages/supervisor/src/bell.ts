/** Wakes one who waits. A ring that nobody waits for is kept for the next who does. */
export class Bell {
  #hasRung = false;
  #wake: (() => void) | undefined;

  ring(): void {
    this.#hasRung = true;
    this.#wake?.();
  }

  /** Resolves at the next ring, after `ms`, or when the signal aborts. */
  async wait(ms: number, signal: AbortSignal): Promise<void> {
    if (!this.#hasRung && !signal.aborted) {
      const { promise, resolve } = Promise.withResolvers<void>();
      const timer = setTimeout(resolve, ms);
      const wake = () => resolve();
      signal.addEventListener('abort', wake, { once: true });
      this.#wake = wake;
      await promise;
      signal.removeEventListener('abort', wake);
      clearTimeout(timer);
    }
    this.#wake = undefined;
    this.#hasRung = false;
  }
}
