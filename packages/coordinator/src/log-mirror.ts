import { join } from 'node:path';
import { CheckpointFollower, EvidenceFolder, findRivals, type ProofSource } from '@hypha/client';
import type { Authority, Checkpoint, Envelope, Verifier } from '@hypha/protocol';
import { isHyphaError } from '@hypha/protocol';
import type { Logger } from '@hypha/service';
import type { Clock } from './clock.ts';

/**
 * The signed heads of the ledger's log, for the same verdict here as on every node, and to be passed on with
 * the work. What contradicts each other is kept below the state folder.
 */
export class LogMirror {
  readonly #deps: LogMirrorDeps;
  readonly #evidence: EvidenceFolder;
  #follower: CheckpointFollower | undefined;
  #opening: Promise<CheckpointFollower> | undefined;

  constructor(deps: LogMirrorDeps) {
    this.#deps = deps;
    this.#evidence = new EvidenceFolder(join(deps.folder, 'evidence'), () => deps.clock.nowMs());
  }

  /**
   * Reads what is pinned, as soon as there is an authority to tell of which fleet.
   * @throws HyphaError `E_CHECKPOINT` when it cannot be read
   */
  async open(): Promise<CheckpointFollower | undefined> {
    const { folder, verifier, proofs, clock, log, authority } = this.#deps;
    const genesis = authority()?.genesisHash;
    if (genesis === undefined) return undefined;
    this.#opening ??= CheckpointFollower.open({
      ...{ folder, genesis, verifier, proofs, clock, authority, evidence: this.#evidence },
      onFork: (err, evidence) =>
        log.error({ err, evidence, alarm: true }, 'the ledger contradicts itself'),
    });
    this.#follower = await this.#opening;
    return this.#follower;
  }

  /** Null before the first. */
  get newest(): Checkpoint | null {
    return this.#follower?.newest ?? null;
  }

  /** The ledger contradicted itself, and nobody has looked into it yet. */
  get isDisputed(): boolean {
    return this.#follower?.isDisputed ?? false;
  }

  /** Epoch seconds: the wall clock, and never before what the ledger last signed. */
  nowSeconds(): number {
    return this.#follower?.floor.nowSeconds() ?? Math.floor(this.#deps.clock.nowMs() / 1000);
  }

  /** As `CheckpointFollower.take`; nothing before there is an authority. */
  async take(note: string, signal: AbortSignal): Promise<void> {
    const follower = await this.open();
    await follower?.take(note, signal);
  }

  /** A head that came with work. Ignores what cannot be believed: the work is judged by what can. */
  async offer(note: string | undefined): Promise<void> {
    if (note === undefined) return;
    try {
      const follower = await this.open();
      await follower?.offer(note);
    } catch (err) {
      const isFork = isHyphaError(err, 'E_LOG_FORK');
      this.#deps.log.warn({ err, ...(isFork ? { alarm: true } : {}) }, 'head of the log refused');
    }
  }

  /** Updates were refused: kept when they prove that somebody made two chains. */
  async keepRivals(
    known: Authority,
    updates: readonly Envelope[],
    refusal: unknown,
  ): Promise<void> {
    const found = findRivals(this.#deps.verifier, known, updates, refusal);
    if (found === undefined) return;
    const evidence = await this.#evidence.keep(found);
    if (evidence !== undefined)
      this.#deps.log.error({ evidence, alarm: true }, 'two authority updates have one number');
  }
}

export interface LogMirrorDeps {
  /** State folder of the coordinator. */
  readonly folder: string;
  readonly verifier: Verifier;
  readonly proofs: ProofSource;
  readonly clock: Clock;
  readonly log: Logger;
  /** As it is known at the moment of the call. */
  readonly authority: () => Authority | undefined;
}
