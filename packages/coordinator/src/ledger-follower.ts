import { HyphaError } from '@hypha/protocol';
import type { Logger } from '@hypha/service';
import type { AuthorityMirror } from './authority-mirror.ts';
import type { Clock } from './clock.ts';
import type { Fleet } from './fleet.ts';
import type { LedgerSource } from './ledger-source.ts';
import { COORDINATOR_LIMITS as LIMITS } from './limits.ts';

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
  #reading: Promise<void> | undefined;
  #readingSince = 0;
  #learning: Promise<void> | undefined;
  #stopping: AbortSignal = new AbortController().signal;
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

  /** As `freshen`, for authority updates of this very moment only. */
  async learnAuthority(): Promise<void> {
    if (this.#failures > 0 || this.#isHanging()) return;
    this.#learning ??= this.#readAuthority(AbortSignal.timeout(LIMITS.ledgerWaitMsMax))
      .catch((err) => this.#deps.log.debug({ err }, 'authority not learned from the ledger'))
      .finally(() => {
        this.#learning = undefined;
      });
    await this.#learning;
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

  async #readAuthority(signal: AbortSignal): Promise<void> {
    const { source, authority } = this.#deps;
    await authority.grow(await source.listAuthority(authority.seq, signal));
  }

  async #readOnce(): Promise<void> {
    const { source, fleet, clock, log } = this.#deps;
    const deadline = AbortSignal.timeout(LIMITS.ledgerReadMsMax);
    const signal = AbortSignal.any([this.#stopping, deadline]);
    const askedAt = clock.nowMs();
    try {
      await this.#readAuthority(signal);
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
  readonly fleet: Fleet;
  /** The ledger's nodes were read; `fleet` has them. */
  readonly onNodes: () => void;
  readonly clock: Clock;
  readonly log: Logger;
  readonly pollMs: number;
}
