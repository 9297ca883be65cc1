import type { Logger } from '@hypha/service';
import type { Store } from '@hypha/store';
import type { ChangeFeed } from './change-feed.ts';
import type { Clock } from './clock.ts';
import type { Doorbell } from './doorbell.ts';
import { expireCancels, expireMessages } from './expiry.ts';
import { COORDINATOR_LIMITS as LIMITS } from './limits.ts';
import { forgetOldCancels, forgetOldRevisions } from './retention.ts';
import type { RunBook } from './run-book.ts';
import type { CoordinatorDb } from './schema.ts';

/** What time alone brings: messages expire, old changes, revisions and cancels are forgotten. */
export class Housekeeping {
  readonly #deps: HousekeepingDeps;
  #prunedAt = 0;

  constructor(deps: HousekeepingDeps) {
    this.#deps = deps;
  }

  /** Sweeps until the signal aborts. A sweep that fails is logged and done again. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#deps;
    while (!signal.aborted) {
      await this.#sweep(signal).catch((err) => log.error({ err }, 'sweep failed'));
      await clock.sleep(LIMITS.sweepMs, signal);
    }
  }

  async #sweep(signal: AbortSignal): Promise<void> {
    const { clock, store, changes, retentionMs } = this.#deps;
    while (!signal.aborted && (await expireCancels(this.#deps)) === LIMITS.expiredAtOnce);
    while (!signal.aborted && (await expireMessages(this.#deps)) === LIMITS.expiredAtOnce);
    if (clock.nowMs() - this.#prunedAt < LIMITS.pruneMs) return;
    this.#prunedAt = clock.nowMs();
    await changes.prune();
    const before = clock.nowMs() - retentionMs;
    const full = LIMITS.retentionRevisionsAtOnce;
    while (!signal.aborted && (await forgetOldRevisions(store, before)) === full);
    await forgetOldCancels(store, Math.min(before, clock.nowMs() - LIMITS.cancelsKeptMsMin));
  }
}

export interface HousekeepingDeps {
  readonly store: Store<CoordinatorDb>;
  readonly runs: RunBook;
  readonly changes: ChangeFeed;
  readonly bell: Doorbell;
  readonly clock: Clock;
  readonly log: Logger;
  readonly retentionMs: number;
}
