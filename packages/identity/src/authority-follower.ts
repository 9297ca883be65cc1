/**
 * The authority as this node knows it: replayed from a chain on disk that starts at the pinned genesis,
 * grown by what the ledger has and by what senders staple. Whoever serves updates can withhold the newest
 * and do nothing else.
 *
 * Invariants: F1 what is used is on disk first, so a restart never knows less. F2 the chain only grows.
 */
import { join } from 'node:path';
import { EvidenceFolder, findRivals, isAuthorityFork } from '@hypha/client';
import {
  Authority,
  Envelope,
  HyphaError,
  isHyphaError,
  parseStrictJson,
  type Verifier,
} from '@hypha/protocol';
import { findPrivateFile, writePrivateFile } from '@hypha/protocol/node';
import { z } from 'zod';
import type { Clock } from './clock.ts';
import { LedgerPoll } from './ledger-poll.ts';
import type { LedgerPort } from './ledger-port.ts';
import { IDENTITY_LIMITS as LIMITS } from './limits.ts';

const ChainFile = z.strictObject({ v: z.literal(1), updates: z.array(Envelope).min(1) });

export interface AuthorityFollowerDeps {
  readonly folder: string;
  /** Digest of the genesis this node trusts. */
  readonly genesis: string;
  readonly ledger: Pick<LedgerPort, 'authority'>;
  readonly verifier: Verifier;
  readonly clock: Clock;
  /** Every failed reading, with its reason. */
  readonly onFailure: (error: unknown) => void;
}

export class AuthorityFollower {
  readonly #deps: AuthorityFollowerDeps;
  #current: Authority;
  readonly #poll: LedgerPoll;
  readonly #evidence: EvidenceFolder;
  readonly #listeners = new Set<(authority: Authority) => void>();
  #growing: Promise<unknown> = Promise.resolve();

  private constructor(deps: AuthorityFollowerDeps, current: Authority, freshAtMs: number) {
    this.#deps = deps;
    this.#current = current;
    const { clock, onFailure } = deps;
    const read = (signal: AbortSignal) => this.read(signal);
    this.#poll = new LedgerPoll({ read, clock, onFailure, freshAtMs });
    this.#evidence = new EvidenceFolder(join(deps.folder, 'evidence'), () => clock.nowMs());
  }

  /**
   * From disk; without a sound chain there, from the ledger.
   * @throws HyphaError when neither has one: `E_UNAVAILABLE`, `E_AUTHORITY`, …
   */
  static async open(deps: AuthorityFollowerDeps, signal: AbortSignal): Promise<AuthorityFollower> {
    const kept = await readChain(deps);
    if (kept !== undefined) return new AuthorityFollower(deps, kept, Number.NEGATIVE_INFINITY);
    const askedAtMs = deps.clock.monotonicMs();
    const bounded = AbortSignal.any([signal, AbortSignal.timeout(LIMITS.attemptMsMax)]);
    const { items } = await deps.ledger.authority({}, { signal: bounded });
    const first = Authority.replay(deps.verifier, items, deps.genesis);
    const { authority } = await readOn(deps.ledger, first, bounded);
    await writeChain(deps.folder, authority);
    return new AuthorityFollower(deps, authority, askedAtMs);
  }

  get current(): Authority {
    return this.#current;
  }

  /** Told of every newer state once it is on disk. Must not throw. */
  onGrown(listener: (authority: Authority) => void): void {
    this.#listeners.add(listener);
  }

  /**
   * Takes updates from anywhere; those known already are skipped. On disk when it resolves. An update that a
   * sound signer put beside one that is known is kept as evidence.
   * @throws HyphaError the codes of `Authority.extend`, `E_LOG_FORK` for such a one; nothing is taken then
   */
  async grow(updates: readonly Envelope[]): Promise<Authority> {
    const growing = this.#growing.then(async () => {
      let next: Authority;
      try {
        next = this.#current.extend(updates);
      } catch (error) {
        const found = findRivals(this.#deps.verifier, this.#current, updates, error);
        if (found === undefined) throw error;
        await this.#evidence.keep(found);
        throw new HyphaError('E_LOG_FORK', found.reason, { cause: error });
      }
      if (next === this.#current) return next;
      await writeChain(this.#deps.folder, next);
      this.#current = next;
      for (const listener of this.#listeners) listener(next);
      return next;
    });
    this.#growing = growing.catch(() => undefined);
    return await growing;
  }

  /** As `LedgerPoll.refresh`. */
  async refresh(wanted: {
    readonly maxAgeMs: number;
    readonly timeoutMs: number;
  }): Promise<boolean> {
    return await this.#poll.refresh(wanted);
  }

  /**
   * Reads what the ledger has behind the copy. Answers whether that was all.
   * @throws HyphaError `E_LOG_FORK` when the ledger has another chain; the codes of `grow`; `E_UNAVAILABLE`
   */
  async read(signal: AbortSignal): Promise<boolean> {
    const { ledger } = this.#deps;
    try {
      const { authority, complete } = await readOn(ledger, this.#current, signal);
      await this.grow(authority.updates);
      return complete;
    } catch (error) {
      if (isHyphaError(error, 'E_LOG_FORK') || isAuthorityFork(error)) await this.#keepFork(signal);
      throw error;
    }
  }

  /** The ledger's own update at the first place where its chain is another one, as evidence. Best effort. */
  async #keepFork(signal: AbortSignal): Promise<void> {
    const { ledger, onFailure } = this.#deps;
    try {
      let since = 0;
      for (let page = 0; page < LIMITS.authorityPages; page++) {
        const { items } = await ledger.authority({ since }, { signal });
        if (items.length === 0) return;
        // Throws at the first that is another one, and that is kept.
        await this.grow(items);
        since += items.length;
      }
    } catch (error) {
      if (!isHyphaError(error, 'E_AUTHORITY') && !isHyphaError(error, 'E_LOG_FORK'))
        onFailure(error);
    }
  }
}

/** Reads pages behind `known`. `complete`: up to the head the ledger named. */
async function readOn(
  ledger: Pick<LedgerPort, 'authority'>,
  known: Authority,
  signal: AbortSignal,
): Promise<{ readonly authority: Authority; readonly complete: boolean }> {
  let authority = known;
  for (let page = 0; page < LIMITS.authorityPages; page++) {
    const { items, head } = await ledger.authority({ since: authority.seq }, { signal });
    const before = authority.seq;
    authority = authority.extend(items);
    const theirs = authority.hashAt(head.seq);
    if (theirs !== undefined && theirs !== head.hash) {
      throw new HyphaError(
        'E_LOG_FORK',
        `the ledger has ${head.hash} as authority update ${head.seq}, known here is ${theirs}`,
        { details: { seq: head.seq, ledger: head.hash, ours: theirs } },
      );
    }
    if (theirs !== undefined) return { authority, complete: true };
    if (authority.seq === before) {
      throw new HyphaError(
        'E_AUTHORITY',
        `the ledger names authority update ${head.seq} and serves none behind ${before}`,
      );
    }
  }
  return { authority, complete: false };
}

/** Undefined when there is none, or when it is not sound: then the ledger is asked for all of it. */
async function readChain({
  folder,
  genesis,
  verifier,
  onFailure,
}: AuthorityFollowerDeps): Promise<Authority | undefined> {
  const path = chainFile(folder);
  const text = await findPrivateFile(path);
  if (text === undefined) return undefined;
  try {
    const { updates } = ChainFile.parse(parseStrictJson(text));
    return Authority.replay(verifier, updates, genesis);
  } catch (cause) {
    onFailure(new HyphaError('E_AUTHORITY', `cannot read the authority in ${path}`, { cause }));
    return undefined;
  }
}

function writeChain(folder: string, { updates }: Authority): Promise<void> {
  return writePrivateFile(chainFile(folder), `${JSON.stringify({ v: 1, updates })}\n`);
}

const chainFile = (folder: string) => join(folder, 'authority.json');
