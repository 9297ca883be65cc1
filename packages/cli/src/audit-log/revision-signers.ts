import type { RunsClient } from '@hypha/client';
import { type Authority, isHyphaError, type Verifier, verifyEnvelope } from '@hypha/protocol';

/** Revisions whose signers are kept at once: many runs share one. */
const KEPT_MAX = 10_000;
const AT_ONCE = 8;

export interface RunReference {
  readonly run: string;
  readonly envelopeDigest: string;
}

/**
 * Who signed the revision of a run. A receipt names the envelope by its digest only, so the envelope is asked
 * for where runs are shown and verified against that digest; the coordinator drops it with the run.
 */
export class RevisionSigners {
  readonly #reader: Pick<RunsClient, 'envelope'>;
  readonly #verifier: Verifier;
  /** Envelope digest → keyids; null: nobody can say. */
  readonly #kept = new Map<string, readonly string[] | null>();
  #isAway = false;
  #reason: string | undefined;

  constructor(reader: Pick<RunsClient, 'envelope'>, verifier: Verifier) {
    this.#reader = reader;
    this.#verifier = verifier;
  }

  /** Why some are not known, where it is not that their envelopes are gone. */
  get reason(): string | undefined {
    return this.#reason;
  }

  /** Keyids of who signed; null when the envelope cannot be had or is not the one of the receipt. */
  async find(run: RunReference, authority: Authority): Promise<readonly string[] | null> {
    const kept = this.#kept.get(run.envelopeDigest);
    if (kept !== undefined) return kept;
    const found = await this.#ask(run, authority);
    if (this.#kept.size >= KEPT_MAX) this.#kept.clear();
    if (!this.#isAway) this.#kept.set(run.envelopeDigest, found);
    return found;
  }

  /** Asks for several at once; `find` answers them afterwards. */
  async prepare(runs: readonly RunReference[], authority: Authority): Promise<void> {
    const distinct = [...new Map(runs.map((run) => [run.envelopeDigest, run])).values()];
    for (let at = 0; at < distinct.length; at += AT_ONCE) {
      const some = distinct.slice(at, at + AT_ONCE);
      await Promise.all(some.map((run) => this.find(run, authority)));
    }
  }

  async #ask(run: RunReference, authority: Authority): Promise<readonly string[] | null> {
    if (this.#isAway) return null;
    try {
      const envelope = await this.#reader.envelope(run.run);
      const { digest, keyids } = verifyEnvelope(this.#verifier, {
        envelope,
        kind: 'script',
        keys: (keyid) => authority.findKey(keyid)?.publicKey,
      });
      if (digest === run.envelopeDigest) return keyids;
      this.#reason = `the coordinator showed another envelope for ${run.run}`;
      return null;
    } catch (error) {
      if (!isHyphaError(error)) throw error;
      this.#isAway = error.code === 'E_UNAVAILABLE';
      if (error.code !== 'E_NOT_FOUND') this.#reason = error.message;
      return null;
    }
  }
}
