import { type Cancellation, type Cancelled, isClaimable, type Journal } from '@hypha/journal';
import type { SupervisorNotice } from '@hypha/journal/client';
import {
  type CancellationAccepted,
  type Envelope,
  isHyphaError,
  LIMITS as PROTOCOL_LIMITS,
  type Submission,
  type VerifiedCancel,
  type Verifier,
  verifyCancel,
} from '@hypha/protocol';
import type { Logger } from '@hypha/service';
import type { Membership } from './admission.ts';
import type { Clock } from './clock.ts';
import type { FleetLog, LogView } from './fleet-log.ts';
import { LIMITS } from './supervisor-limits.ts';

interface CancellationDeps {
  readonly journal: Pick<Journal, 'cancel' | 'findCancelled'>;
  readonly fleetLog: Pick<FleetLog, keyof LogView | 'explain'>;
  readonly verifier: Verifier;
  readonly clock: Clock;
  /** Throws `E_UNAVAILABLE` before the node has enrolled. */
  readonly membership: () => Membership;
  /** Tells the runner that holds a run. */
  readonly notify: (runner: string, notice: SupervisorNotice) => void;
  /** A cancelled run that nobody holds has its turn now. */
  readonly kick: () => void;
  readonly log: Logger;
}

/**
 * The one way cancels come in, from the API and from the inbox alike. Resolves once it is durable that the run
 * begins no further step (G6); what became of the canceller's key later changes nothing. A run that nobody has
 * begun is over then; a runner that has one is told to stop and undo; one that waits gets a runner for that.
 */
export class NodeCancellation {
  readonly #deps: CancellationDeps;
  #accepted = 0;

  constructor(deps: CancellationDeps) {
    this.#deps = deps;
  }

  /** Cancels that were taken since this process began. */
  get accepted(): number {
    return this.#accepted;
  }

  /**
   * Throws what verifying a cancel throws, `E_SCOPE` for work that the signers may not cancel, `E_TOO_LATE` for a run
   * that is committed or over, `E_RATE` when too many cancels wait for their target.
   */
  async submit({
    envelope,
    authority = [],
    checkpoint,
  }: Submission): Promise<CancellationAccepted> {
    const { fleetLog } = this.#deps;
    const node = this.#deps.membership();
    await fleetLog.offer(authority, checkpoint);
    await fleetLog.refresh(LIMITS.authorityAgeMs);
    const { cancellation, cancelled } = await this.#take(envelope, node);
    const { runs, existing } = cancelled;
    if (!existing) this.#enforce(cancellation, runs);
    return {
      cancellation: cancellation.digest,
      target: cancellation.target,
      runs: runs.map(({ run }) => ({ run, node: node.id })),
      ...(existing ? { existing } : {}),
    };
  }

  async #take(
    envelope: Envelope,
    node: Membership,
  ): Promise<{ readonly cancellation: Cancellation; readonly cancelled: Cancelled }> {
    const { journal, fleetLog } = this.#deps;
    try {
      const cancellation = this.#cancellationOf(await this.#verifyFresh(envelope, node));
      return { cancellation, cancelled: await journal.cancel(cancellation) };
    } catch (error) {
      if (!isHyphaError(error, 'E_EXPIRED')) throw error;
      // Accepted in time is accepted: the same cancel again is judged without clocks.
      const cancellation = this.#cancellationOf(this.#verify(envelope, node));
      const cancelled = await journal.findCancelled(cancellation);
      if (cancelled === undefined) throw fleetLog.explain(error, node);
      return { cancellation, cancelled };
    }
  }

  /** Asks the ledger once more for a key of this very second. */
  async #verifyFresh(envelope: Envelope, node: Membership): Promise<VerifiedCancel> {
    const { fleetLog } = this.#deps;
    try {
      return this.#verify(envelope, node, fleetLog.nowSeconds());
    } catch (error) {
      if (!isHyphaError(error, 'E_UNKNOWN_KEY')) throw error;
      await fleetLog.refresh(0, LIMITS.authorityAskMs);
      return this.#verify(envelope, node, fleetLog.nowSeconds());
    }
  }

  #verify(envelope: Envelope, node: Membership, nowSeconds?: number): VerifiedCancel {
    const { fleetLog, verifier } = this.#deps;
    return verifyCancel(verifier, {
      ...{ envelope, authority: fleetLog.current(), node },
      ...(nowSeconds === undefined ? {} : { nowSeconds }),
    });
  }

  #cancellationOf({ digest, payload, keyids, mayCancelAny }: VerifiedCancel): Cancellation {
    const { realm, target, iat } = payload;
    const { lifetimeSecondsMax, skewSeconds } = PROTOCOL_LIMITS;
    return {
      ...{ digest, target, realm, keyids, mayCancelAny },
      receivedAtMs: this.#deps.clock.nowMs(),
      // The target was signed before its cancel, and both clocks may be off.
      forgetAtSeconds: iat + lifetimeSecondsMax + 2 * skewSeconds,
    };
  }

  #enforce({ digest, target }: Cancellation, runs: Cancelled['runs']): void {
    const { notify, kick, log } = this.#deps;
    this.#accepted++;
    log.info({ cancellation: digest, target, runs: runs.map(({ run }) => run) }, 'cancel accepted');
    for (const entry of runs.filter(isClaimable)) {
      const { run, holder } = entry;
      if (holder === null) kick();
      else notify(holder, { notice: 'cancel', run });
    }
  }
}
