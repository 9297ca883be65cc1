import type { LedgerClient } from '@hypha/client';
import type { Journal, SignedReceipt } from '@hypha/journal';
import {
  type Checkpoint,
  canonicalBytes,
  fromHex,
  HyphaError,
  isHyphaError,
  leafHash,
  type Verifier,
  verifyInclusion,
} from '@hypha/protocol';
import type { Logger } from '@hypha/service';
import { z } from 'zod';
import type { Clock } from './clock.ts';
import type { FleetLog } from './fleet-log.ts';
import { LIMITS } from './supervisor-limits.ts';

/** The cursor by which the ledger has proven receipts: one for the whole chain, in its order. */
export const LEDGER_RECEIPTS = { destination: 'ledger', topic: 'receipts' } as const;

/** What the ledger knows of this node's receipts, when it refuses one. */
const Refusal = z.object({
  known: z.object({ seq: z.int(), digest: z.string() }),
  given: z.object({ seq: z.int() }),
});

interface ReceiptDeliveryDeps {
  readonly journal: Journal;
  readonly ledger: Pick<LedgerClient, 'appendEntry' | 'inclusion'>;
  readonly fleetLog: Pick<FleetLog, 'pinned' | 'refresh'>;
  readonly verifier: Verifier;
  readonly clock: Clock;
  readonly log: Logger;
}

/**
 * Brings receipts to the ledger in the order they were signed. An answer is no proof: a receipt is told once it
 * is in the log under a head that this node has pinned, and what is not is on disk until it is.
 */
export class ReceiptDelivery {
  readonly #deps: ReceiptDeliveryDeps;
  /** Newest that the ledger says it has taken. In memory: sending twice changes nothing. */
  #sent = 0;
  // seq → where the ledger says its receipt is, until that is proven
  readonly #indexes = new Map<number, number>();
  /** Monotonic time since which the oldest one waits for its proof. */
  #waitingSinceMs: number | undefined;
  /** Newest that somebody was alarmed about. */
  #alarmed = 0;

  constructor(deps: ReceiptDeliveryDeps) {
    this.#deps = deps;
  }

  /** How long the oldest receipt the ledger has taken waits to be in the log, seconds. */
  get unprovenSeconds(): number {
    if (this.#waitingSinceMs === undefined) return 0;
    return Math.floor((this.#deps.clock.monotonicMs() - this.#waitingSinceMs) / 1000);
  }

  /** One page. Whether more may be left: then it waited for the next head of the log already. */
  async deliver(signal: AbortSignal): Promise<boolean> {
    const { journal, fleetLog, clock } = this.#deps;
    const { destination, topic } = LEDGER_RECEIPTS;
    const proven = await journal.cursors.read(destination, topic);
    const receipts = await journal.runs.listReceipts(proven, LIMITS.receiptsPerPage);
    const last = receipts.at(-1);
    if (last === undefined) return false;
    await this.#send(receipts, signal);
    await fleetLog.refresh(LIMITS.proofPollMs);
    const done = await this.#prove(receipts, signal);
    if (done > proven) {
      await journal.cursors.advance(destination, topic, done);
      this.#waitingSinceMs = undefined;
    }
    if (done === last.seq) return receipts.length === LIMITS.receiptsPerPage;
    this.#waitingSinceMs ??= clock.monotonicMs();
    this.#alarmWhenLate(done + 1);
    await clock.sleep(LIMITS.proofPollMs, signal);
    return true;
  }

  async #send(receipts: readonly SignedReceipt[], signal: AbortSignal): Promise<void> {
    const { ledger, log } = this.#deps;
    for (const { seq, envelope } of receipts) {
      if (seq <= this.#sent) continue;
      try {
        const { index } = await ledger.appendEntry(envelope, { signal });
        this.#indexes.set(seq, index);
      } catch (err) {
        if (await this.#resendLost(err, signal)) throw notYet(seq, err);
        if (isHyphaError(err) && !err.retryable && this.#alarmed < seq) {
          this.#alarmed = seq;
          log.error({ err, seq, alarm: true }, 'the ledger refuses a receipt');
        }
        throw err;
      }
      this.#sent = seq;
    }
  }

  /** A ledger that was set back asks for what it has lost: by naming the last receipt that it has. */
  async #resendLost(refusal: unknown, signal: AbortSignal): Promise<boolean> {
    const { journal, ledger, log } = this.#deps;
    if (!isHyphaError(refusal, 'E_CONFLICT')) return false;
    const { data } = Refusal.safeParse(refusal.details);
    if (data === undefined || data.known.seq + 1 >= data.given.seq) return false;
    const from = data.known.seq - 1;
    const [known, ...lost] = await journal.runs.listReceipts(from, LIMITS.receiptsPerPage);
    // Not the chain that this node made.
    if (known?.digest !== data.known.digest || lost[0]?.seq !== data.known.seq + 1) return false;
    this.#indexes.clear();
    for (const { envelope } of lost) await ledger.appendEntry(envelope, { signal });
    log.warn({ from: data.known.seq + 1, count: lost.length }, 'receipts sent again to the ledger');
    return true;
  }

  /** The last receipt, in order, that is in the log under the pinned head. */
  async #prove(receipts: readonly SignedReceipt[], signal: AbortSignal): Promise<number> {
    const { pinned } = this.#deps.fleetLog;
    let done = (receipts[0]?.seq ?? 1) - 1;
    if (pinned === undefined) return done;
    for (const receipt of receipts) {
      // By its own word the ledger cannot prove it yet: the next head may have it.
      if ((this.#indexes.get(receipt.seq) ?? 0) >= pinned.size) return done;
      if (!(await this.#isIn(receipt, pinned, signal))) return done;
      done = receipt.seq;
      this.#indexes.delete(done);
    }
    return done;
  }

  async #isIn(
    { digest, envelope, seq }: SignedReceipt,
    { size, root }: Checkpoint,
    signal: AbortSignal,
  ): Promise<boolean> {
    const { ledger, verifier, log } = this.#deps;
    try {
      const { index, proof } = await ledger.inclusion({ digest, size }, { signal });
      verifyInclusion(verifier, {
        ...{ index, size },
        // What this node signed, not what the ledger says it took.
        leafHash: leafHash(verifier, canonicalBytes(envelope)),
        proof: proof.map(fromHex),
        root: fromHex(root),
      });
      return true;
    } catch (error) {
      // Not among the entries that the pinned head counts.
      if (isHyphaError(error, 'E_NOT_FOUND')) return false;
      if (!isHyphaError(error, 'E_PROOF')) throw error;
      log.debug({ err: error, seq }, 'receipt not proven');
      return false;
    }
  }

  /** A ledger that takes receipts and leaves them out of its log is found out here. */
  #alarmWhenLate(seq: number): void {
    const { clock, log } = this.#deps;
    const sinceMs = this.#waitingSinceMs ?? clock.monotonicMs();
    if (clock.monotonicMs() - sinceMs < LIMITS.proofMsMax) return;
    if (this.#alarmed < seq) {
      this.#alarmed = seq;
      const message = `the ledger took receipt ${seq} and does not have it in its log`;
      log.error({ err: new HyphaError('E_PROOF', message), seq, alarm: true }, 'receipt withheld');
    }
    // From the start: whoever lost it may take it now.
    this.#sent = seq - 1;
    this.#indexes.clear();
    this.#waitingSinceMs = clock.monotonicMs();
  }
}

function notYet(seq: number, cause: unknown): HyphaError {
  const message = `receipt ${seq} has to wait for those that the ledger has lost`;
  return new HyphaError('E_UNAVAILABLE', message, { cause });
}
