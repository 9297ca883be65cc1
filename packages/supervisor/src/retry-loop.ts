import { isHyphaError } from '@hypha/protocol';
import type { Logger } from '@hypha/service';
import { Bell } from './bell.ts';
import type { Clock } from './clock.ts';
import { backoffMs, LIMITS } from './supervisor-limits.ts';

interface RetryLoopDeps {
  readonly clock: Clock;
  readonly log: Logger;
  /** Names the loop in the log. */
  readonly name: string;
  /** Does what there is to do; true when more may be left. A throw is tried again later. */
  readonly work: (signal: AbortSignal) => Promise<boolean>;
}

/**
 * Does work whenever asked, one at a time, and tries what failed for ever with back-off: how this node tells
 * others what it has on disk while they come and go. The first to ask after a rest is served soon; on a busy
 * node much is told at once.
 */
export class RetryLoop {
  readonly #deps: RetryLoopDeps;
  readonly #stopping = new AbortController();
  readonly #bell = new Bell();
  #end: Promise<void> = Promise.resolve();
  #isAsked = false;
  #failures = 0;
  /** Monotonic: until then what comes in is gathered. */
  #restUntilMs = 0;

  constructor(deps: RetryLoopDeps) {
    this.#deps = deps;
  }

  /** Work fails since the last success. */
  get isFailing(): boolean {
    return this.#failures > 0;
  }

  start(): void {
    this.#isAsked = true;
    this.#end = this.#run();
  }

  /** There may be something to do. While failing or at rest, it waits for its time all the same. */
  kick(): void {
    this.#bell.ring();
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#end;
  }

  async #run(): Promise<void> {
    const { clock } = this.#deps;
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      if (this.#isAsked) {
        const pauseMs = await this.#attempt();
        await clock.sleep(pauseMs, signal);
      } else {
        await this.#bell.wait(LIMITS.deliveryMsMax, signal);
        const restMs = this.#restUntilMs - clock.monotonicMs();
        await clock.sleep(Math.max(LIMITS.gatherMs, restMs), signal);
        this.#isAsked = true;
      }
    }
  }

  /** How long to wait before the next. */
  async #attempt(): Promise<number> {
    const { work, clock, log, name } = this.#deps;
    this.#isAsked = false;
    try {
      if (await work(this.#stopping.signal)) this.#isAsked = true;
      if (this.#failures > 0) log.info({ failures: this.#failures }, `${name} goes on`);
      this.#failures = 0;
      this.#restUntilMs = clock.monotonicMs() + LIMITS.restMs;
      return 0;
    } catch (err) {
      if (this.#stopping.signal.aborted) return 0;
      this.#failures++;
      // What will not pass by itself is for a person to look at.
      const level = isHyphaError(err) && err.retryable ? 'warn' : 'error';
      if (this.#failures === 1) log[level]({ err }, `${name} failed`);
      else log.debug({ err, failures: this.#failures }, `${name} failed again`);
      this.#isAsked = true;
      const bounds = { min: LIMITS.deliveryMsMin, max: LIMITS.deliveryMsMax };
      return backoffMs(this.#failures, bounds, clock.jitter());
    }
  }
}
