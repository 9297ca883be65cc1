/**
 * Tells streams that there is something new to read; what it is, they read from the store. A ring that
 * is lost or doubled changes nothing but the moment.
 */
export class Doorbell {
  readonly #listeners = new Map<string, Set<() => void>>();

  ring(topic: string): void {
    for (const listener of this.#listeners.get(topic) ?? []) listener();
  }

  /** Listens until `signal` is aborted. */
  listen(topic: string, signal: AbortSignal): Listening {
    let rung = true;
    let wake: (() => void) | undefined;
    const listener = () => {
      rung = true;
      wake?.();
    };
    const listeners = this.#listeners.get(topic) ?? new Set();
    if (!signal.aborted) this.#listeners.set(topic, listeners.add(listener));
    const stop = () => {
      listeners.delete(listener);
      if (listeners.size === 0) this.#listeners.delete(topic);
      listener();
    };
    signal.addEventListener('abort', stop, { once: true });
    return {
      next: async (waitMs) => {
        if (!rung && !signal.aborted) {
          await new Promise<void>((resolve) => {
            const timer = waitMs === undefined ? undefined : setTimeout(resolve, waitMs);
            wake = () => {
              clearTimeout(timer);
              resolve();
            };
          });
        }
        rung = false;
        return !signal.aborted;
      },
    };
  }
}

export interface Listening {
  /**
   * Resolves at once the first time and when it rang since the last call, else at the next ring or after
   * `waitMs`, whichever comes first. False once the signal is aborted.
   */
  next(waitMs?: number): Promise<boolean>;
}
