/** A crash at one chosen point: what reaches it never goes on, exactly as after `kill -9`. */
export class CrashPoint {
  /** Passed so far. */
  readonly points: string[] = [];
  readonly reached: Promise<'crashed'>;
  readonly #at: number;
  readonly #crash: (value: 'crashed') => void;

  /** @param at number of the point to die at, from 1; `Infinity`: never */
  constructor(at: number) {
    this.#at = at;
    const { promise, resolve } = Promise.withResolvers<'crashed'>();
    this.reached = promise;
    this.#crash = resolve;
  }

  async pass(point: string): Promise<void> {
    if (this.points.length < this.#at) this.points.push(point);
    if (this.points.length < this.#at) return;
    this.#crash('crashed');
    await new Promise<never>(() => undefined);
  }
}
