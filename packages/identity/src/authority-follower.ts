/**
 * The authority as this node knows it: replayed from a chain on disk that starts at the pinned genesis,
 * grown by what the ledger has and by what senders staple. Whoever serves updates can withhold the newest
 * and do nothing else.
 *
 * Invariants: F1 what is used is on disk first, so a restart never knows less. F2 the chain only grows.
 */
import { join } from 'node:path';
import { Authority, Envelope, HyphaError, parseStrictJson, type Verifier } from '@hypha/protocol';
import { findPrivateFile, writePrivateFile } from '@hypha/protocol/node';
import { z } from 'zod';
import type { Clock } from './clock.ts';
import type { LedgerPort } from './ledger-port.ts';
import { IDENTITY_LIMITS as LIMITS, retryDelayMs } from './limits.ts';

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
  /** Monotonic time at which the copy was last known to be the ledger's newest. */
  #freshAtMs: number;
  #failures = 0;
  #retryAtMs = Number.NEGATIVE_INFINITY;
  #reading: Promise<void> | undefined;
  #growing: Promise<unknown> = Promise.resolve();

  private constructor(deps: AuthorityFollowerDeps, current: Authority, freshAtMs: number) {
    this.#deps = deps;
    this.#current = current;
    this.#freshAtMs = freshAtMs;
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

  /**
   * Takes updates from anywhere; those known already are skipped. On disk when it resolves.
   * @throws HyphaError the codes of `Authority.extend`; nothing is taken then
   */
  async grow(updates: readonly Envelope[]): Promise<Authority> {
    const growing = this.#growing.then(async () => {
      const next = this.#current.extend(updates);
      if (next === this.#current) return next;
      await writeChain(this.#deps.folder, next);
      this.#current = next;
      return next;
    });
    this.#growing = growing.catch(() => undefined);
    return await growing;
  }

  /**
   * Best effort to be at most `maxAgeMs` behind the ledger. Waits at most `timeoutMs`, and not at all while
   * the ledger is known to be away. Never rejects; answers whether the copy is that fresh.
   */
  async refresh(wanted: {
    readonly maxAgeMs: number;
    readonly timeoutMs: number;
  }): Promise<boolean> {
    const { clock } = this.#deps;
    const isFresh = () => clock.monotonicMs() - this.#freshAtMs <= wanted.maxAgeMs;
    if (isFresh()) return true;
    if (this.#reading === undefined && clock.monotonicMs() < this.#retryAtMs) return false;
    await this.#readWithin(wanted.timeoutMs, new AbortController().signal);
    return isFresh();
  }

  /** Keeps up with the ledger until the signal aborts. */
  async run(pollMs: number, signal: AbortSignal): Promise<void> {
    const { clock } = this.#deps;
    while (!signal.aborted) {
      await this.#readWithin(LIMITS.attemptMsMax, signal);
      const delayMs = this.#failures === 0 ? pollMs : this.#retryAtMs - clock.monotonicMs();
      await clock.sleep(Math.max(0, delayMs), signal);
    }
  }

  /** Leaves the reading to itself after that time, or when the signal aborts. */
  async #readWithin(timeoutMs: number, signal: AbortSignal): Promise<void> {
    const done = new AbortController();
    const limit = this.#deps.clock.sleep(timeoutMs, AbortSignal.any([signal, done.signal]));
    await Promise.race([this.#read(), limit]);
    done.abort();
  }

  /** One reading at a time; callers share it. Never rejects. */
  #read(): Promise<void> {
    this.#reading ??= this.#readOnce().finally(() => {
      this.#reading = undefined;
    });
    return this.#reading;
  }

  async #readOnce(): Promise<void> {
    const { clock, ledger, onFailure } = this.#deps;
    const askedAtMs = clock.monotonicMs();
    try {
      const signal = AbortSignal.timeout(LIMITS.attemptMsMax);
      const { authority, complete } = await readOn(ledger, this.#current, signal);
      await this.grow(authority.updates);
      this.#failures = 0;
      this.#retryAtMs = Number.NEGATIVE_INFINITY;
      if (complete) this.#freshAtMs = askedAtMs;
    } catch (error) {
      this.#failures++;
      this.#retryAtMs = clock.monotonicMs() + retryDelayMs(this.#failures, clock.jitter());
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
