/**
 * Time in which this process could have heard others. A pause of its own, because it was stopped or starved, is
 * nobody's silence: it counts for no more than one tick, after which whatever waits in the sockets is read.
 */
export class ListeningClock {
  readonly #tickMsMax: number;
  #lastMs: number;
  #elapsedMs = 0;

  /** @param tickMsMax what one tick adds at most: how often `tick` is meant to be called */
  constructor(nowMs: number, tickMsMax: number) {
    this.#lastMs = nowMs;
    this.#tickMsMax = tickMsMax;
  }

  get elapsedMs(): number {
    return this.#elapsedMs;
  }

  /** @param nowMs monotonic */
  tick(nowMs: number): void {
    this.#elapsedMs += Math.min(nowMs - this.#lastMs, this.#tickMsMax);
    this.#lastMs = nowMs;
  }
}
