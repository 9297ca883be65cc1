import { HyphaError } from '@hypha/protocol';

type Turn = (fault?: HyphaError) => void;

/**
 * Who is answered next when requests come faster than they can be answered: the newest, because the ones that
 * have waited longest are the most likely to be given up on. One at a time, and between two of them whatever
 * has arrived is read, so that a flood delays a request that comes after it by its reading only.
 */
export class RequestTurns {
  readonly #max: number;
  /** Newest last. */
  readonly #waiting: Turn[] = [];
  #isRunning = false;

  /** @param max that wait; with one more the oldest is told to come again */
  constructor(max: number) {
    this.#max = max;
  }

  /** Calls `turn` when it is its turn, with `E_UNAVAILABLE` when that never comes. */
  wait(turn: Turn): void {
    this.#waiting.push(turn);
    if (this.#waiting.length > this.#max)
      this.#waiting.shift()?.(overloaded(`${this.#max} requests wait`));
    if (this.#isRunning) return;
    this.#isRunning = true;
    setImmediate(() => this.#next());
  }

  #next(): void {
    const turn = this.#waiting.pop();
    this.#isRunning = this.#waiting.length > 0;
    if (this.#isRunning) setImmediate(() => this.#next());
    turn?.();
  }
}

/** @param reason why there is no more room */
export function overloaded(reason: string): HyphaError {
  return new HyphaError('E_UNAVAILABLE', `cannot take another request: ${reason}`, {
    hint: 'wait and try again',
    details: { retryAfterMs: 1000 },
  });
}
