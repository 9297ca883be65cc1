import type { Clock } from '../src/index.ts';

/** Real time, but no wait is longer than a bound: what was to be slept is written down. */
export class ImpatientClock implements Clock {
  readonly slept: number[] = [];
  readonly #sleepMsMax: number;

  constructor(sleepMsMax = 2) {
    this.#sleepMsMax = sleepMsMax;
  }

  nowMs(): number {
    return Date.now();
  }

  monotonicMs(): number {
    return performance.now();
  }

  jitter(): number {
    return 0.5;
  }

  sleep(ms: number, signal: AbortSignal): Promise<void> {
    this.slept.push(ms);
    return new Promise((resolve) => {
      if (signal.aborted) return resolve();
      const timer = setTimeout(done, Math.min(ms, this.#sleepMsMax));
      signal.addEventListener('abort', done, { once: true });
      function done() {
        clearTimeout(timer);
        signal.removeEventListener('abort', done);
        resolve();
      }
    });
  }
}
