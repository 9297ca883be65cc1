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

  async pass(point: string): Promise<void> {
    if (this.points.length >= this.#at) return await new Promise<never>(() => undefined);
    this.points.push(point);
    if (this.points.length < this.#at) return;
    this.#blow('blown');
    await new Promise<never>(() => undefined);
  }
}
