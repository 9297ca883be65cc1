/**
 * What one reader has seen of the fleet's log. Whoever signs its heads can withhold the newest and cannot
 * show two histories unnoticed.
 *
 * Invariants: C1 a head is on disk before it counts. C2 only what was proven to extend the pinned head is
 * pinned. C3 two heads that contradict each other are kept as evidence, and from then on no head counts
 * that is newer than the pinned one, until a person has removed the pin or the ledger has proven that both
 * are of one history.
 */
import {
  type Authority,
  base64,
  type Checkpoint,
  checkExtends,
  checkpointOrigin,
  fromBase64,
  HyphaError,
  isHyphaError,
  type Verifier,
  verifyCheckpoint,
} from '@hypha/protocol';
import { type CheckpointPin, readPin, type SignedNote, writePin } from './checkpoint-pin.ts';
import { ClockFloor, type FloorClock } from './clock-floor.ts';
import type { Evidence, EvidenceFolder } from './evidence-folder.ts';

/** Proofs of the ledger that is followed; `LedgerClient` is one. */
export interface ProofSource {
  consistency(
    query: { readonly from: number; readonly to: number },
    options: { readonly signal: AbortSignal },
  ): Promise<{ readonly proof: readonly string[] }>;
}

export interface CheckpointFollowerDeps {
  /** Where the pin is kept. */
  readonly folder: string;
  /** Digest of the genesis: names the log. */
  readonly genesis: string;
  readonly verifier: Verifier;
  readonly proofs: ProofSource;
  readonly clock: FloorClock;
  readonly evidence: EvidenceFolder;
  /** As it is known at the moment of the call; undefined before there is one. */
  readonly authority: () => Authority | undefined;
  /** Two heads contradict each other. Called once for each finding, with the path of the evidence. */
  readonly onFork: (error: HyphaError, evidence: string) => void;
}

/** A verified head and the key that signed it, base64. */
interface Head extends Checkpoint {
  readonly ledgerKey: string;
}

export class CheckpointFollower {
  readonly floor: ClockFloor;
  readonly #deps: CheckpointFollowerDeps;
  #pin: CheckpointPin;
  #pinned: Head | undefined;
  /** Signed by the ledger, newer than the pinned one, and not proven yet. */
  #claimed: Head | undefined;
  /** Readings of the ledger, which wait for it, one after the other. */
  #taking: Promise<unknown> = Promise.resolve();
  /** Changes of the pin, which wait for the disk only. */
  #changing: Promise<unknown> = Promise.resolve();

  private constructor(deps: CheckpointFollowerDeps, pin: CheckpointPin) {
    this.#deps = deps;
    this.#pin = pin;
    this.#pinned = pin.pinned === null ? undefined : this.#verifyStored(pin.pinned);
    this.floor = new ClockFloor(deps.clock, pin.signedTime);
  }

  /** @throws HyphaError `E_CHECKPOINT` when what is pinned cannot be read or does not verify */
  static async open(deps: CheckpointFollowerDeps): Promise<CheckpointFollower> {
    return new CheckpointFollower(deps, await readPin(deps.folder));
  }

  /** The newest proven head; undefined before the first. Proofs of entries are checked against it. */
  get pinned(): Checkpoint | undefined {
    return this.#pinned;
  }

  /** What says how fresh the authority is: the newest of what was proven and what a sender brought. */
  get newest(): Checkpoint | null {
    const [pinned, claimed] = [this.#pinned, this.#claimed];
    if (claimed === undefined || this.isDisputed) return pinned ?? null;
    return pinned === undefined || claimed.time > pinned.time ? claimed : pinned;
  }

  /** The ledger contradicted itself: nothing newer is believed. */
  get isDisputed(): boolean {
    return this.#pin.disputed !== null;
  }

  /**
   * The head that the ledger serves now. Pinned, durably, when it resolves.
   * @throws HyphaError `E_CHECKPOINT` when it is not signed by the ledger's key; `E_LOG_FORK` when it does not
   *   follow; what asking for a proof throws
   */
  async take(note: string, signal: AbortSignal): Promise<void> {
    const mine = this.#taking.then(async () => {
      const next = this.#verify(note);
      await this.#reconsider(signal);
      await this.#judge(next, () => this.#checkAuthority(next));
      // What a sender brought has to be of the same history as what is served.
      const claimed = this.#claimed;
      if (claimed !== undefined && claimed.size <= next.size) await this.#advance(claimed, signal);
      if (claimed !== undefined && claimed.size > next.size && claimed.time < next.time)
        await this.#judge(next, () => checkExtends(this.#deps.verifier, claimed, next, []));
      await this.#advance(next, signal);
    });
    this.#taking = mine.catch(() => undefined);
    await mine;
  }

  /**
   * A head that came with work. It may say that the authority is fresh; it is pinned only with a proof, which
   * the next reading of the ledger asks for. One that is older than what is known changes nothing. Waits for
   * nobody.
   * @throws HyphaError `E_CHECKPOINT`, `E_LOG_FORK`
   */
  async offer(note: string): Promise<void> {
    const next = this.#verify(note);
    await this.#judge(next, async () => {
      if (this.isDisputed) return;
      this.#checkAuthority(next);
      const known = this.newest;
      if (known !== null && next.time <= known.time) return;
      const pinned = this.#pinned;
      if (pinned !== undefined && next.size <= pinned.size) {
        checkExtends(this.#deps.verifier, pinned, next, []);
        return await this.#pinTo(next);
      }
      await this.#keep({ signedTime: Math.max(this.#pin.signedTime, next.time) });
      this.#claimed = next;
      this.floor.raise(next.time);
    });
  }

  /** Moves the pin to a head that has to follow it. Only readings of the ledger change its size. */
  async #advance(next: Head, signal: AbortSignal): Promise<void> {
    const pinned = this.#pinned;
    if (next.note === pinned?.note) return;
    // An old head is no contradiction: anyone may have kept it. It is still no answer of a sound ledger.
    if (pinned !== undefined && next.size < pinned.size && next.time <= pinned.time)
      throw await this.#refuseOld(pinned, next);
    const proof = pinned === undefined ? [] : await this.#prove(pinned, next, signal);
    await this.#judge(next, async () => {
      // By something that came meanwhile: the next reading looks into it.
      if (this.isDisputed) return;
      const now = this.#pinned;
      if (now !== undefined) {
        checkExtends(this.#deps.verifier, now, next, proof);
        // The same tree, signed earlier.
        if (next.size === now.size && next.time <= now.time) return;
      }
      await this.#pinTo(next);
    });
  }

  async #prove(from: Checkpoint, to: Checkpoint, signal: AbortSignal): Promise<readonly string[]> {
    if (to.size <= from.size) return [];
    const sizes = { from: from.size, to: to.size };
    return (await this.#deps.proofs.consistency(sizes, { signal })).proof;
  }

  async #pinTo(next: Head): Promise<void> {
    await this.#keep({
      pinned: signedNote(next),
      disputed: null,
      signedTime: Math.max(this.#pin.signedTime, next.time),
    });
    this.#pinned = next;
    this.floor.raise(next.time);
    const claimed = this.#claimed;
    if (claimed !== undefined && claimed.size <= next.size && claimed.time <= next.time)
      this.#claimed = undefined;
  }

  /** A proof may have been spoilt on its way: a sound ledger can give it again. */
  async #reconsider(signal: AbortSignal): Promise<void> {
    const { disputed } = this.#pin;
    const pinned = this.#pinned;
    if (disputed === null) return;
    const other = this.#verifyStored(disputed);
    const proof = pinned === undefined ? [] : await this.#prove(pinned, other, signal);
    await this.#judge(other, async () => {
      this.#checkAuthority(other);
      if (pinned !== undefined) checkExtends(this.#deps.verifier, pinned, other, proof);
      await this.#pinTo(other);
    });
  }

  /** The authority is replayed by everyone: a head that binds another one is of another history. */
  #checkAuthority(next: Checkpoint): void {
    const { seq, head } = next.authority;
    const authority = this.#deps.authority();
    const ours = authority?.hashAt(seq);
    if (authority === undefined || ours === undefined || ours === head) return;
    throw new HyphaError(
      'E_LOG_FORK',
      `the log has ${head} as authority update ${seq}, known here is ${ours}`,
      { details: { pinned: authority.updates[seq], other: next.note } },
    );
  }

  /** Judges `next` by what is known at that moment, and acts on it. What contradicts is kept as evidence. */
  async #judge(next: Head, judge: () => Promise<void> | void): Promise<void> {
    const mine = this.#changing.then(async () => {
      try {
        await judge();
      } catch (error) {
        if (isHyphaError(error, 'E_LOG_FORK')) await this.#dispute(next, error);
        throw error;
      }
    });
    this.#changing = mine.catch(() => undefined);
    await mine;
  }

  async #dispute(next: Head, error: HyphaError): Promise<void> {
    this.#claimed = undefined;
    if (!this.isDisputed) {
      await this.#keep({ disputed: { ...signedNote(next), reason: error.message } });
    }
    await this.#keepEvidence('log-fork', next, error);
  }

  async #refuseOld(pinned: Head, next: Head): Promise<HyphaError> {
    const error = new HyphaError(
      'E_LOG_FORK',
      `the ledger serves a head of ${next.size} entries that is older than the pinned one of ${pinned.size}`,
      {
        hint: 'the ledger was set back, or somebody in between replays old answers',
        details: { pinned: pinned.note, other: next.note },
      },
    );
    await this.#keepEvidence('log-rollback', next, error);
    return error;
  }

  async #keepEvidence(kind: Evidence['kind'], { note }: Head, error: HyphaError): Promise<void> {
    const { pinned: ours = null } = Object(error.details);
    const found = { kind, reason: error.message, ours, theirs: note };
    const path = await this.#deps.evidence.keep(found);
    if (path !== undefined) this.#deps.onFork(error, path);
  }

  async #keep(change: Partial<CheckpointPin>): Promise<void> {
    const pin = { ...this.#pin, ...change };
    await writePin(this.#deps.folder, pin);
    this.#pin = pin;
  }

  #verify(note: string): Head {
    const publicKey = this.#deps.authority()?.ledgerKey?.publicKey;
    if (publicKey === undefined) {
      throw new HyphaError('E_CHECKPOINT', 'the authority names no key of the ledger', {
        hint: 'a root has to name it: hypha authority set-ledger-key',
      });
    }
    return this.#verifyStored({ note, ledgerKey: base64(publicKey) });
  }

  #verifyStored({ note, ledgerKey }: SignedNote): Head {
    const origin = checkpointOrigin(this.#deps.genesis);
    const publicKey = fromBase64(ledgerKey);
    const checkpoint = verifyCheckpoint(this.#deps.verifier, note, { origin, publicKey });
    return { ...checkpoint, ledgerKey };
  }
}

function signedNote({ note, ledgerKey }: Head): SignedNote {
  return { note, ledgerKey };
}
