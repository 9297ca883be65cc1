import { isAuthorityFork, isLedgerAway } from '@hypha/client';
import { HyphaError, isHyphaError } from '@hypha/protocol';
import type { Logger } from '@hypha/service';
import type { AuthorityMirror } from './authority-mirror.ts';
import type { Clock } from './clock.ts';
import type { Fleet } from './fleet.ts';
import type { LedgerSource } from './ledger-source.ts';
import { COORDINATOR_LIMITS as LIMITS } from './limits.ts';
import type { LogMirror } from './log-mirror.ts';

/** Answers to a coordinator that the authority grants nothing, or not this. */
const REFUSALS: ReadonlySet<string | undefined> = new Set([
  ...['E_UNAUTHENTICATED', 'E_FORBIDDEN', 'E_KEY_REVOKED', 'E_KEY_EXPIRED'],
]);

/**
 * Keeps authority and nodes close to the ledger's: polls in the background, and at once for a request
 * that needs a fresh view. The ledger being away blocks nobody: what is stored here is used.
 */
export class LedgerFollower {
  readonly #deps: LedgerFollowerDeps;
  #freshAt = Number.NEGATIVE_INFINITY;
  #failures = 0;
  /** Code of what was wrong with the last head of the log. */
  #headFault: string | undefined;
  #reading: Promise<void> | undefined;
  #readingSince = 0;
  #learning: Promise<void> | undefined;
  #stopping: AbortSignal = new AbortController().signal;
  #keyAskedAt = Number.NEGATIVE_INFINITY;
  /** Questions about unknown nodes that wait for their answer. */
  #strangers = 0;

  constructor(deps: LedgerFollowerDeps) {
    this.#deps = deps;
  }

  /**
   * Best effort: resolves when the copy here is at most `ageMsMax` old, or when the ledger did not
   * answer in `ledgerWaitMsMax`, or at once while it is known to be away. Never rejects. Answers whether
   * the copy is that fresh.
   */
  async freshen(ageMsMax: number = LIMITS.ledgerAgeMsMax): Promise<boolean> {
    if (this.#isFresh(ageMsMax)) return true;
    if (this.#failures > 0 || this.#isHanging()) return false;
    await this.#waitFor(this.#read());
    return this.#isFresh(ageMsMax);
  }

  /** As `freshen`, for authority and log of this very moment only. */
  async learnAuthority(): Promise<void> {
    if (this.#failures > 0 || this.#isHanging()) return;
    this.#learning ??= this.#readLog(AbortSignal.timeout(LIMITS.ledgerWaitMsMax))
      .catch((err) => this.#deps.log.debug({ err }, 'authority not learned from the ledger'))
      .finally(() => {
        this.#learning = undefined;
      });
    await this.#learning;
  }

  /** As `learnAuthority`, for a key that is not known here. Anyone can name such keys: not too often. */
  async learnKey(): Promise<void> {
    const sinceMs = this.#deps.clock.nowMs() - this.#keyAskedAt;
    if (sinceMs >= 0 && sinceMs < LIMITS.strangerKeyMsMin) return;
    this.#keyAskedAt = this.#deps.clock.nowMs();
    await this.learnAuthority();
  }

  /** Asks the ledger for one node that is not known here yet. Never rejects. */
  async learnNode(id: string): Promise<void> {
    // Anyone can name nodes that are not there: only so many questions at once are passed on.
    if (this.#failures > 0 || this.#strangers >= LIMITS.strangersAskedMax) return;
    const { source, fleet, log } = this.#deps;
    this.#strangers++;
    try {
      const record = await source.getNode(id, AbortSignal.timeout(LIMITS.ledgerWaitMsMax));
      await fleet.learn([record]);
    } catch (err) {
      log.debug({ err, nodeId: id }, 'node not learned from the ledger');
    } finally {
      this.#strangers--;
    }
  }

  /** Polls until the signal aborts. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, fleet, log } = this.#deps;
    this.#stopping = signal;
    while (!signal.aborted) {
      await this.#read();
      await fleet.tellChanges().catch((err) => log.error({ err }, 'node changes not told'));
      await clock.sleep(this.#nextPollMs(), signal);
    }
  }

  #isFresh(ageMsMax: number): boolean {
    const ageMs = this.#deps.clock.nowMs() - this.#freshAt;
    return ageMs >= 0 && ageMs <= ageMsMax;
  }

  /** Whether others have waited long enough for the reading that is going on. */
  #isHanging(): boolean {
    const sinceMs = this.#deps.clock.nowMs() - this.#readingSince;
    return this.#reading !== undefined && sinceMs > LIMITS.ledgerWaitMsMax;
  }

  async #waitFor(reading: Promise<void>): Promise<void> {
    const waited = new AbortController();
    await Promise.race([reading, this.#deps.clock.sleep(LIMITS.ledgerWaitMsMax, waited.signal)]);
    waited.abort();
  }

  #nextPollMs(): number {
    const { clock, pollMs } = this.#deps;
    if (this.#failures === 0) return pollMs;
    const doubled = LIMITS.ledgerRetryMsMin * 2 ** Math.min(this.#failures - 1, 10);
    return Math.min(doubled, LIMITS.ledgerRetryMsMax) * (0.5 + clock.random() / 2);
  }

  /** One reading at a time; callers share it. Never rejects. */
  #read(): Promise<void> {
    if (this.#reading === undefined) {
      this.#readingSince = this.#deps.clock.nowMs();
      this.#reading = this.#readOnce().finally(() => {
        this.#reading = undefined;
      });
    }
    return this.#reading;
  }

  /** Authority and head of the log. A head that cannot be had holds up nothing: it grows old by itself. */
  async #readLog(signal: AbortSignal): Promise<void> {
    const { source, authority, heads } = this.#deps;
    // Asked first: whatever it names has to be among what is served after it.
    const [asked] = await Promise.allSettled([source.readCheckpoint(signal)]);
    const updates = await source.listAuthority(authority.seq, signal);
    try {
      await authority.grow(updates);
    } catch (error) {
      if (isAuthorityFork(error)) await this.#keepFork(signal);
      throw error;
    }
    try {
      if (asked.status === 'rejected') throw asked.reason;
      await heads.take(asked.value, signal);
      this.#headFault = undefined;
    } catch (err) {
      this.#sayHeadFault(err);
    }
  }

  /** Both updates at the first place where the ledger's chain is another one. Best effort. */
  async #keepFork(signal: AbortSignal): Promise<void> {
    const { source, authority, heads, log } = this.#deps;
    const known = authority.get();
    try {
      const all = await source.listAuthority(0, signal);
      try {
        known.extend(all);
      } catch (error) {
        await heads.keepRivals(known, all, error);
      }
    } catch (err) {
      log.debug({ err }, 'the chain of the ledger cannot be read');
    }
  }

  #sayHeadFault(err: unknown): void {
    const code = isHyphaError(err) ? err.code : 'unknown';
    const isAway = isLedgerAway(err);
    const level = code === this.#headFault || isAway ? 'debug' : 'error';
    this.#headFault = code;
    this.#deps.log[level]({ err, ...(isAway ? {} : { alarm: true }) }, 'head of the log not taken');
  }

  async #readOnce(): Promise<void> {
    const { source, fleet, clock, log } = this.#deps;
    const deadline = AbortSignal.timeout(LIMITS.ledgerReadMsMax);
    const signal = AbortSignal.any([this.#stopping, deadline]);
    const askedAt = clock.nowMs();
    try {
      await this.#readLog(signal);
      await fleet.learn(await source.listNodes(signal));
      this.#deps.onNodes();
      if (this.#failures > 0) log.info({ failures: this.#failures }, 'ledger is back');
      this.#failures = 0;
      this.#freshAt = askedAt;
    } catch (err) {
      if (this.#stopping.aborted) return;
      this.#failures++;
      const code = err instanceof HyphaError ? err.code : undefined;
      if (code === 'E_AUTHORITY') {
        log.error({ err }, 'ledger serves another authority chain than the one known here');
      } else if (REFUSALS.has(code) && this.#failures === 1) {
        log.error({ err }, 'ledger refuses the key of this coordinator: it needs a grant');
      } else if (this.#failures === 1) log.warn({ err }, 'ledger is away');
      else log.debug({ err, failures: this.#failures }, 'ledger is still away');
    }
  }
}

export interface LedgerFollowerDeps {
  readonly source: LedgerSource;
  readonly authority: AuthorityMirror;
  readonly heads: LogMirror;
  readonly fleet: Fleet;
  /** The ledger's nodes were read; `fleet` has them. */
  readonly onNodes: () => void;
  readonly clock: Clock;
  readonly log: Logger;
  readonly pollMs: number;
}
