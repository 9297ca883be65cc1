/** Work that can be told to stop, and waited for until it has. */
export class InFlightWork<T> {
  readonly #entries = new Set<{ subject: T; stop: AbortController; end: Promise<void> }>();

  /** Runs it with a signal of its own that also aborts with `signal`. */
  async run(
    subject: T,
    signal: AbortSignal,
    work: (signal: AbortSignal) => Promise<void>,
  ): Promise<void> {
    const stop = new AbortController();
    const over = Promise.withResolvers<void>();
    const entry = { subject, stop, end: over.promise };
    this.#entries.add(entry);
    try {
      await work(AbortSignal.any([signal, stop.signal]));
    } finally {
      this.#entries.delete(entry);
      over.resolve();
    }
  }

  /** Resolves when all that match have ended, however they did. */
  async interrupt(matches: (subject: T) => boolean, reason: Error): Promise<void> {
    const found = [...this.#entries].filter(({ subject }) => matches(subject));
    for (const { stop } of found) stop.abort(reason);
    await Promise.all(found.map(({ end }) => end));
  }
}
