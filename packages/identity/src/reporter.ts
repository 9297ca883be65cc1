import {
  type ErrorCode,
  isHyphaError,
  type NodeFacts,
  type ResourceLimits,
  signReport,
} from '@hypha/protocol';
import type { Boot } from './boot.ts';
import type { Clock } from './clock.ts';
import type { LedgerPort } from './ledger-port.ts';
import { IDENTITY_LIMITS as LIMITS, retryDelayMs } from './limits.ts';
import type { NodeKeys } from './node-keys.ts';
import type { ReportBuffer } from './report-buffer.ts';

/** What the supervisor knows at the moment of a report. */
export interface NodeSample {
  readonly facts: NodeFacts;
  readonly reserved: ResourceLimits;
  readonly free: ResourceLimits;
  readonly runsActive: number;
  readonly authoritySeq: number;
}

export interface ReporterDeps {
  readonly keys: Pick<NodeKeys, 'nodeId' | 'signer'>;
  readonly buffer: ReportBuffer;
  readonly ledger: Pick<LedgerPort, 'report'>;
  readonly sample: () => Promise<NodeSample>;
  readonly boot: Boot;
  readonly clock: Clock;
  readonly intervalMs: number;
  /** Every failed attempt, with its reason. `dropped`: a report the ledger will never take. */
  readonly onFailure: (failure: { readonly error: unknown; readonly dropped?: number }) => void;
}

/** Refusals that are about the report itself: sending it again would never help. */
const UNDELIVERABLE: ReadonlySet<ErrorCode> = new Set([
  'E_SIZE',
  'E_REQUEST',
  'E_ENVELOPE',
  'E_PAYLOAD_TYPE',
  'E_PAYLOAD',
  'E_SIG_FORMAT',
  'E_SIG_INVALID',
  'E_CONFLICT',
]);

/**
 * Signs a sign of life every interval and brings them to the ledger in order. The two go on apart: while
 * the ledger is away reports are made and kept, and are delivered when it is back.
 */
export class Reporter {
  readonly #deps: ReporterDeps;
  #made = Promise.withResolvers<void>();
  #wanted = Promise.withResolvers<void>();

  constructor(deps: ReporterDeps) {
    this.#deps = deps;
  }

  /** Until the signal aborts. Never rejects. */
  async run(signal: AbortSignal): Promise<void> {
    await Promise.all([this.#makeReports(signal), this.#deliverReports(signal)]);
  }

  /**
   * Something that placement goes by has changed: the next report does not wait for its turn. Several calls
   * at once make one report.
   */
  reportSoon(): void {
    this.#wanted.resolve();
  }

  async #makeReports(signal: AbortSignal): Promise<void> {
    const { onFailure } = this.#deps;
    while (!signal.aborted) {
      try {
        await this.#makeReport();
        this.#made.resolve();
      } catch (error) {
        onFailure({ error });
      }
      await this.#pause(signal);
    }
    this.#made.resolve();
  }

  /** Until the next report is due, or wanted. */
  async #pause(signal: AbortSignal): Promise<void> {
    const { clock, intervalMs } = this.#deps;
    const woken = new AbortController();
    const due = clock.sleep(intervalMs, AbortSignal.any([signal, woken.signal]));
    const wanted = this.#wanted.promise.then(() => clock.sleep(LIMITS.reportSoonMs, signal));
    await Promise.race([due, wanted]);
    woken.abort();
    this.#wanted = Promise.withResolvers();
  }

  async #makeReport(): Promise<void> {
    const { keys, buffer, boot, clock, sample } = this.#deps;
    const sampled = await sample();
    const seq = buffer.nextSeq;
    const envelope = signReport(
      {
        v: 1,
        node: keys.nodeId,
        seq,
        bootId: boot.bootId,
        uptimeMs: boot.uptimeMs(),
        at: clock.nowMs(),
        ...sampled,
      },
      keys.signer,
    );
    await buffer.append({ seq, envelope });
  }

  async #deliverReports(signal: AbortSignal): Promise<void> {
    const { buffer, clock, onFailure } = this.#deps;
    let failures = 0;
    let batch: number = LIMITS.reportsPerBatch;
    while (!signal.aborted) {
      if (buffer.isDrained) {
        await this.#made.promise;
        this.#made = Promise.withResolvers();
        continue;
      }
      try {
        await this.#deliver(batch, signal);
        failures = 0;
        batch = LIMITS.reportsPerBatch;
      } catch (error) {
        if (signal.aborted) return;
        failures++;
        onFailure({ error });
        // One of the batch is refused: singly, the others get through.
        if (isUndeliverable(error)) batch = 1;
        await clock.sleep(retryDelayMs(failures, clock.jitter()), signal);
      }
    }
  }

  async #deliver(countMax: number, signal: AbortSignal): Promise<void> {
    const { keys, buffer, ledger, onFailure } = this.#deps;
    const reports = await buffer.pending(countMax);
    const last = reports.at(-1);
    if (last === undefined) return buffer.delivered(buffer.nextSeq - 1);
    const bounded = AbortSignal.any([signal, AbortSignal.timeout(LIMITS.attemptMsMax)]);
    try {
      const envelopes = reports.map(({ envelope }) => envelope);
      const { seq } = await ledger.report(keys.nodeId, envelopes, { signal: bounded });
      buffer.delivered(Math.max(seq, last.seq));
    } catch (error) {
      if (countMax > 1 || !isUndeliverable(error)) throw error;
      onFailure({ error, dropped: last.seq });
      buffer.delivered(last.seq);
    }
  }
}

function isUndeliverable(error: unknown): boolean {
  return isHyphaError(error) && UNDELIVERABLE.has(error.code);
}
