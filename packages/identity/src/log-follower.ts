import { join } from 'node:path';
import { CheckpointFollower, EvidenceFolder, type ProofSource } from '@hypha/client';
import { type Checkpoint, type Envelope, HyphaError, type Verifier } from '@hypha/protocol';
import type { AuthorityFollower } from './authority-follower.ts';
import type { Clock } from './clock.ts';
import { LedgerPoll } from './ledger-poll.ts';

/** What the ledger says of its log; `LedgerClient` of `@hypha/client` is one. */
export interface LogPort extends ProofSource {
  checkpoint(options: { readonly signal: AbortSignal }): Promise<{ readonly checkpoint: string }>;
}

export interface LogFollowerDeps {
  /** Where the pin and the evidence are kept. */
  readonly folder: string;
  readonly authority: AuthorityFollower;
  readonly ledger: LogPort;
  readonly verifier: Verifier;
  readonly clock: Clock;
  /** Every failed reading, with its reason. */
  readonly onFailure: (error: unknown) => void;
  /** The ledger contradicted itself: once for each finding, with the path of what proves it. */
  readonly onFork: (error: HyphaError, evidence: string) => void;
}

/**
 * The fleet's log as this node follows it: who may do what, and how fresh that is. A head of the log names the
 * newest authority update, so a ledger that withholds a revocation cannot show a fresh one (G1).
 */
export class LogFollower {
  readonly authority: AuthorityFollower;
  readonly checkpoints: CheckpointFollower;
  readonly #ledger: LogPort;
  readonly #poll: LedgerPoll;

  private constructor(deps: LogFollowerDeps, checkpoints: CheckpointFollower) {
    const { authority, ledger, clock, onFailure } = deps;
    this.authority = authority;
    this.checkpoints = checkpoints;
    this.#ledger = ledger;
    const read = (signal: AbortSignal) => this.#read(signal);
    const freshAtMs = Number.NEGATIVE_INFINITY;
    this.#poll = new LedgerPoll({ read, clock, onFailure, freshAtMs });
  }

  /** @throws HyphaError `E_CHECKPOINT` when what is pinned cannot be read */
  static async open(deps: LogFollowerDeps): Promise<LogFollower> {
    const { folder, authority, ledger, verifier, clock, onFork } = deps;
    const checkpoints = await CheckpointFollower.open({
      folder,
      genesis: authority.current.genesisHash,
      verifier,
      proofs: ledger,
      clock,
      evidence: new EvidenceFolder(join(folder, 'evidence'), () => clock.nowMs()),
      authority: () => authority.current,
      onFork,
    });
    return new LogFollower(deps, checkpoints);
  }

  /** What new work is judged by; null before the first. */
  get newest(): Checkpoint | null {
    return this.checkpoints.newest;
  }

  /** Epoch seconds: the wall clock, and never before what the ledger last signed. */
  nowSeconds(): number {
    return this.checkpoints.floor.nowSeconds();
  }

  /** As `LedgerPoll.refresh`. */
  async refresh(wanted: {
    readonly maxAgeMs: number;
    readonly timeoutMs: number;
  }): Promise<boolean> {
    return await this.#poll.refresh(wanted);
  }

  /** Keeps up with the ledger until the signal aborts. */
  async run(pollMs: number, signal: AbortSignal): Promise<void> {
    await this.#poll.run(pollMs, signal);
  }

  /**
   * What came with work or from the coordinator, as if it came from the ledger. Waits for no one.
   * @throws HyphaError the codes of `Authority.extend` and `CheckpointFollower.offer`
   */
  async offer(
    updates: readonly Envelope[] = [],
    checkpoint: string | undefined = undefined,
  ): Promise<void> {
    if (updates.length > 0) await this.authority.grow(updates);
    if (checkpoint !== undefined) await this.checkpoints.offer(checkpoint);
  }

  async #read(signal: AbortSignal): Promise<boolean> {
    // Asked first: whatever it names has to be among what is served after it.
    const [asked] = await Promise.allSettled([this.#ledger.checkpoint({ signal })]);
    const isComplete = await this.authority.read(signal);
    if (asked.status === 'rejected') throw asked.reason;
    await this.checkpoints.take(asked.value.checkpoint, signal);
    const { seq } = this.newest?.authority ?? { seq: 0 };
    if (seq <= this.authority.current.seq) return isComplete;
    throw new HyphaError(
      'E_STALE_VIEW',
      `the log has authority update ${seq}, the ledger serves none behind ${this.authority.current.seq}`,
      { hint: 'the ledger withholds updates: staple them, and look into the ledger' },
    );
  }
}
