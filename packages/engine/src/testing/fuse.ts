/**
 * A crash at one chosen point: the process that reaches it never goes on, exactly as after `kill -9`. Every
 * port of the rig passes the fuse before and after each thing it does.
 */
export class Fuse {
  readonly points: string[] = [];
  readonly blown: Promise<'blown'>;
  readonly #at: number;
  readonly #blow: (value: 'blown') => void;

  /** @param at number of the point to die at, from 1; `Infinity`: never */
  constructor(at: number) {
    this.#at = at;
    const { promise, resolve } = Promise.withResolvers<'blown'>();
    this.blown = promise;
    this.#blow = resolve;
  }

  /** Does not return once the process is dead. */
  async live(): Promise<void> {
    if (this.points.length >= this.#at) await new Promise<never>(() => undefined);
  }

  async pass(point: string): Promise<void> {
    await this.live();
    this.points.push(point);
    if (this.points.length < this.#at) return;
    this.#blow('blown');
    await new Promise<never>(() => undefined);
  }
}
