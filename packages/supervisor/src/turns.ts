/** One at a time for each key, a bounded number at once in all, in the order asked. */
export class Turns {
  readonly #slotsMax: number;
  readonly #waiting: (() => void)[] = [];
  // key → the end of the last that was asked of it
  readonly #last = new Map<string, Promise<void>>();
  #slots = 0;

  constructor(slotsMax: number) {
    this.#slotsMax = slotsMax;
  }

  /** Something of this key is under way or waits. */
  isTaken(key: string): boolean {
    return this.#last.has(key);
  }

  /** @param pace `at once`: takes no slot, so that it waits for its own key and nothing else */
  async take(
    key: string,
    work: () => Promise<void>,
    pace: 'in turn' | 'at once' = 'in turn',
  ): Promise<void> {
    const before = this.#last.get(key) ?? Promise.resolve();
    const mine = before.then(() => (pace === 'at once' ? work() : this.#inSlot(work)));
    // An order only: whoever waits does not care how this ends.
    const end = mine.catch(() => undefined);
    this.#last.set(key, end);
    try {
      await mine;
    } finally {
      if (this.#last.get(key) === end) this.#last.delete(key);
    }
  }

  /** Everything that was asked has ended. */
  async idle(): Promise<void> {
    await Promise.all(this.#last.values());
  }

  async #inSlot(work: () => Promise<void>): Promise<void> {
    if (this.#slots >= this.#slotsMax) {
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    } else {
      this.#slots++;
    }
    try {
      await work();
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#slots--;
      // The slot goes on to whoever waited longest.
      else next();
    }
  }
}
