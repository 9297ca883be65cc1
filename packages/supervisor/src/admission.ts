import type { GivenSecret, Journal, RunEntry, RunSource } from '@hypha/journal';
import {
  checkModeFits,
  checkScriptSyntax,
  type Envelope,
  isHyphaError,
  openEnvelope,
  type ResourceLimits,
  runIdOf,
  type Submission,
  type VerifiedScript,
  type Verifier,
  verifyScript,
} from '@hypha/protocol';
import type { Clock } from './clock.ts';
import type { FleetLog, LogView } from './fleet-log.ts';
import type { SecretVault } from './secret-vault.ts';
import { LIMITS } from './supervisor-limits.ts';

/** What an enrolled node knows of itself and of who may ask it. */
export interface Membership {
  readonly id: string;
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly realms: readonly string[];
}

interface AdmissionDeps {
  readonly journal: Journal;
  readonly log: Pick<FleetLog, keyof LogView | 'explain'>;
  readonly verifier: Verifier;
  readonly clock: Clock;
  /** Throws `E_UNAVAILABLE` before the node has enrolled. */
  readonly membership: () => Membership;
  /** All this node has to give. */
  readonly capacity: () => Promise<ResourceLimits>;
  readonly secrets: Pick<SecretVault, 'take'>;
  /** How old the known authority may be when new work is judged, milliseconds. */
  readonly authorityAgeMs: number;
  /** Monotonic time at which the journal was opened. */
  readonly openedAtMs: number;
}

/**
 * The one way work comes in, from the API and from the inbox alike. Resolves once the run is durable in this
 * node's own journal (G2). Throws what the operator has to know, and then nothing was kept.
 */
export class NodeAdmission {
  readonly #deps: AdmissionDeps;

  constructor(deps: AdmissionDeps) {
    this.#deps = deps;
  }

  async submit(
    { envelope, authority: stapled = [], checkpoint }: Submission,
    source: RunSource,
  ): Promise<{ readonly entry: RunEntry; readonly existing: boolean }> {
    const { journal, log, verifier } = this.#deps;
    const node = this.#deps.membership();
    await log.offer(stapled, checkpoint);
    await log.refresh(this.#deps.authorityAgeMs);
    let script: VerifiedScript;
    let secrets: GivenSecret[];
    try {
      script = await this.#verifyFresh(envelope, node);
      checkModeFits(script.payload);
      if (script.payload.script !== undefined) checkScriptSyntax(script.payload.script.source);
      secrets = this.#deps.secrets.take(script.payload);
    } catch (error) {
      // Accepted in time is accepted: the same work again is judged without clocks.
      const known = await this.#findKnown(envelope, node, error);
      return { entry: known, existing: true };
    }
    await this.dateJournal();
    const { digest, payload, keyids } = script;
    return await journal.admit({
      run: runIdOf(verifier, digest, node.id),
      digest,
      envelope,
      payload,
      keyids,
      authoritySeq: log.current().seq,
      source,
      capacity: await this.#deps.capacity(),
      secrets,
    });
  }

  /** Asks the ledger once more for a key or an update of this very second. */
  async #verifyFresh(envelope: Envelope, node: Membership): Promise<VerifiedScript> {
    try {
      return this.#verify(envelope, node, 'new');
    } catch (error) {
      if (!isHyphaError(error, 'E_UNKNOWN_KEY') && !isHyphaError(error, 'E_STALE_VIEW'))
        throw error;
      await this.#deps.log.refresh(0, LIMITS.authorityAskMs);
      return this.#verify(envelope, node, 'new');
    }
  }

  #verify(envelope: Envelope, node: Membership, work: 'new' | 'known'): VerifiedScript {
    const { log, verifier } = this.#deps;
    return verifyScript(verifier, {
      envelope,
      authority: log.current(),
      profile: 'admit',
      nowSeconds: log.nowSeconds(),
      node,
      checkpoint: log.newest(),
      // Ids and nonces are looked up by the journal, in the write that uses them up.
      replay: {
        hasDigest: () => work === 'known',
        findId: () => undefined,
        findNonce: () => undefined,
      },
    });
  }

  /**
   * Says when a new journal began, once a head of the log is fresh by this node's clock: then that can be
   * trusted. To be called now and then, so that a restart before the first work changes nothing. Answers
   * whether it did so now.
   */
  async dateJournal(): Promise<boolean> {
    const { journal, log, clock, openedAtMs } = this.#deps;
    const newest = log.newest();
    if (journal.horizon.isDated || newest === null) return false;
    if (log.nowSeconds() - newest.time > log.current().policy.checkpointMaxAge) return false;
    await journal.horizon.date(log.nowSeconds() * 1000 - (clock.monotonicMs() - openedAtMs));
    return true;
  }

  /** Throws `refusal` when the work is not known, and its own when it does not verify at all. */
  async #findKnown(envelope: Envelope, node: Membership, error: unknown): Promise<RunEntry> {
    if (!isHyphaError(error)) throw error;
    const refusal = this.#deps.log.explain(error, node);
    let digest: string;
    try {
      ({ digest } = openEnvelope(this.#deps.verifier, envelope, 'script'));
    } catch {
      throw refusal;
    }
    const known = await this.#deps.journal.runs.findByDigest(digest);
    if (known === undefined) throw refusal;
    this.#verify(envelope, node, 'known');
    return known;
  }
}
