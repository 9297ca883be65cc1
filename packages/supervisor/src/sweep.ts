import type { Journal } from '@hypha/journal';
import type { Logger } from '@hypha/service';
import type { Clock } from './clock.ts';
import { LEDGER_RECEIPTS } from './receipt-delivery.ts';
import { LIMITS } from './supervisor-limits.ts';

interface SweepDeps {
  readonly journal: Journal;
  readonly clock: Clock;
  readonly log: Logger;
  /** Newest time the ledger signed, epoch seconds: it never goes back. */
  readonly signedTime: () => number;
  /** Takes up what a lost message, job or event left behind. Cheap when there is nothing. */
  readonly settle: () => void;
}

/** The last line of defence (design §10): what nobody was told of is found by looking. */
export class Sweep {
  readonly #deps: SweepDeps;
  #timers: NodeJS.Timeout[] = [];

  constructor(deps: SweepDeps) {
    this.#deps = deps;
  }

  start(): void {
    this.#deps.settle();
    this.#timers = [
      setInterval(() => this.#deps.settle(), LIMITS.sweepMs),
      setInterval(() => void this.#forget(), LIMITS.retentionSweepMs),
    ];
  }

  stop(): void {
    for (const timer of this.#timers) clearInterval(timer);
  }

  /** Never rejects. */
  async #forget(): Promise<void> {
    const { journal, clock, log } = this.#deps;
    const { destination, topic } = LEDGER_RECEIPTS;
    try {
      // By what was signed, not by the clock: that may have jumped ahead.
      await journal.horizon.forget(this.#deps.signedTime());
      const receiptSeq = await journal.cursors.read(destination, topic);
      const endedBefore = clock.nowMs() - LIMITS.retentionMs;
      const dropped = await journal.sweeper.dropRuns(endedBefore, receiptSeq);
      if (dropped > 0) log.info({ dropped }, 'old runs dropped');
    } catch (err) {
      log.error({ err }, 'old runs cannot be dropped');
    }
  }
}
