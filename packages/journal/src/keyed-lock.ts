/** One at a time for each key, in the order asked; keys do not wait for each other. */
export class KeyedLock {
  // key → end of the last thing that was asked of it
  readonly #ends = new Map<string, Promise<void>>();

  async hold<T>(key: string, work: () => Promise<T>): Promise<T> {
    const before = this.#ends.get(key);
    const mine = before === undefined ? work() : before.then(work);
    // An order only: whoever waits does not care how this ends.
    const end = mine.then(ignore, ignore);
    this.#ends.set(key, end);
    try {
      return await mine;
    } finally {
      if (this.#ends.get(key) === end) this.#ends.delete(key);
    }
  }
}

const ignore = () => undefined;
