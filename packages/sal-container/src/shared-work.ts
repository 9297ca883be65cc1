/** Work that several callers wait for, each with its own signal, and that ends when none is left. */
export class SharedWork<T> {
  readonly #running = new Map<string, Running<T>>();

  /**
   * Joins the work of this key, or starts it. A caller whose signal is aborted leaves with the reason;
   * the last to leave aborts the work and waits until it has ended.
   */
  async join(
    key: string,
    signal: AbortSignal,
    start: (signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    signal.throwIfAborted();
    const running = this.#find(key) ?? this.#start(key, start);
    running.waiting++;
    const left = Promise.withResolvers<never>();
    const onAbort = () => {
      // Counted at once: all the steps of a run are told in the same moment.
      running.waiting--;
      if (running.waiting > 0) left.reject(signal.reason);
      else running.controller.abort(signal.reason);
    };
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      return await Promise.race([running.promise, left.promise]);
    } finally {
      signal.removeEventListener('abort', onAbort);
      if (!signal.aborted) running.waiting--;
    }
  }

  #find(key: string): Running<T> | undefined {
    const running = this.#running.get(key);
    return running?.controller.signal.aborted === true ? undefined : running;
  }

  #start(key: string, start: (signal: AbortSignal) => Promise<T>): Running<T> {
    const controller = new AbortController();
    const promise = start(controller.signal).finally(() => {
      if (this.#running.get(key) === running) this.#running.delete(key);
    });
    const running: Running<T> = { promise, controller, waiting: 0 };
    this.#running.set(key, running);
    return running;
  }
}

interface Running<T> {
  readonly promise: Promise<T>;
  readonly controller: AbortController;
  waiting: number;
}
