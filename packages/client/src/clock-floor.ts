/**
 * The time it is at least: what the ledger last signed, carried on with the monotonic clock. A wall clock
 * that is behind it is wrong, and an envelope that expired by it has expired (design §8).
 */
export class ClockFloor {
  readonly #clock: FloorClock;
  #seconds: number;
  #setAtMs: number;
  /** In this process: before it, nobody knows how long nothing was heard. */
  #isRaised = false;
  /** Newest time that was signed, epoch seconds; 0 for none. What is to outlast this process. */
  #signed: number;

  /** @param signed what a former process knew, epoch seconds; 0 for nothing */
  constructor(clock: FloorClock, signed: number) {
    this.#clock = clock;
    this.#signed = signed;
    this.#seconds = signed;
    this.#setAtMs = clock.monotonicMs();
  }

  /** Newest signed time, epoch seconds; 0 before the first. */
  get signed(): number {
    return this.#signed;
  }

  /** A verified checkpoint says so, epoch seconds. */
  raise(seconds: number): void {
    this.#signed = Math.max(this.#signed, seconds);
    this.#isRaised = true;
    if (seconds <= this.#floorSeconds()) return;
    this.#seconds = seconds;
    this.#setAtMs = this.#clock.monotonicMs();
  }

  /** Epoch seconds: the wall clock, or the floor where that is later. */
  nowSeconds(): number {
    return Math.floor(Math.max(this.#wallSeconds(), this.#floorSeconds()));
  }

  /** How far the wall clock is behind what was signed; 0 when it is not. */
  behindSeconds(): number {
    return Math.max(0, Math.floor(this.#floorSeconds() - this.#wallSeconds()));
  }

  /** How far the wall clock is ahead of it, as far as that can be told. */
  aheadSeconds(): number {
    if (!this.#isRaised) return 0;
    return Math.max(0, Math.floor(this.#wallSeconds() - this.#floorSeconds()));
  }

  #wallSeconds(): number {
    return this.#clock.nowMs() / 1000;
  }

  #floorSeconds(): number {
    return this.#seconds + (this.#clock.monotonicMs() - this.#setAtMs) / 1000;
  }
}

export interface FloorClock {
  /** Wall clock, epoch milliseconds. */
  nowMs(): number;
  monotonicMs(): number;
}
