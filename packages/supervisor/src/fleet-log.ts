import { isLedgerAway } from '@hypha/client';
import { type AuthorityFollower, LogFollower, type LogPort } from '@hypha/identity';
import {
  type Authority,
  type Checkpoint,
  type Envelope,
  HyphaError,
  isHyphaError,
  LIMITS as PROTOCOL_LIMITS,
  type Verifier,
} from '@hypha/protocol';
import type { Logger } from '@hypha/service';
import type { Clock } from './clock.ts';
import { LIMITS } from './supervisor-limits.ts';

/** The fleet's log as this node sees it: who may ask it, and how fresh that knowledge is. */
export interface LogView {
  /** The newest authority known. Throws `E_UNAVAILABLE` before the node has enrolled. */
  current(): Authority;
  /** The newest signed head of the log; null before the first. */
  newest(): Checkpoint | null;
  /** Epoch seconds: the wall clock, and never before what the ledger last signed. */
  nowSeconds(): number;
  /** Asks the ledger unless that was done `maxAgeMs` ago; never throws, never waits long. */
  refresh(maxAgeMs: number, timeoutMs?: number): Promise<void>;
  /** What came with work, as if it came from the ledger. Ignores what cannot be believed. */
  offer(updates: readonly Envelope[], checkpoint?: string): Promise<void>;
}

interface FleetLogDeps {
  /** Of the node's identity: the pin and the evidence are kept there. */
  readonly folder: string;
  readonly verifier: Verifier;
  readonly clock: Clock;
  readonly log: Logger;
  /** Throws `E_UNAVAILABLE` before the node has enrolled. */
  readonly authority: () => Authority;
}

/** Follows the log from the moment the node has joined, and says what people have to look into. */
export class FleetLog implements LogView {
  readonly #deps: FleetLogDeps;
  #follower: LogFollower | undefined;
  #isClockSaid = false;
  /** Why the log is not believed, once it was said. */
  #reasonSaid: string | undefined;

  constructor(deps: FleetLogDeps) {
    this.#deps = deps;
  }

  /** @throws HyphaError `E_CHECKPOINT` when what is pinned cannot be read */
  async open(authority: AuthorityFollower, ledger: LogPort): Promise<void> {
    const { folder, verifier, clock, log } = this.#deps;
    this.#follower = await LogFollower.open({
      ...{ folder, verifier, clock, authority, ledger },
      onFailure: (err) => {
        // A ledger that is away is routine; one that forks or rolls back is an attack or a disaster.
        const isAway = isLedgerAway(err) && !isHyphaError(err, 'E_STALE_VIEW');
        const reason = err instanceof Error ? err.message : 'unknown';
        if (isAway || reason === this.#reasonSaid) log.debug({ err }, 'log not read');
        else log.error({ err, alarm: true }, 'log not believed');
        if (!isAway) this.#reasonSaid = reason;
      },
      onFork: (err, evidence) =>
        log.error({ err, evidence, alarm: true }, 'the ledger contradicts itself'),
    });
  }

  /** Keeps up with the ledger until the signal aborts. */
  async run(signal: AbortSignal): Promise<void> {
    await this.#follower?.run(LIMITS.authorityPollMs, signal);
  }

  current(): Authority {
    return this.#deps.authority();
  }

  newest(): Checkpoint | null {
    return this.#follower?.newest ?? null;
  }

  /** The newest head that was proven to extend all that were seen before; undefined before the first. */
  get pinned(): Checkpoint | undefined {
    return this.#follower?.checkpoints.pinned;
  }

  nowSeconds(): number {
    return this.#follower?.nowSeconds() ?? Math.floor(this.#deps.clock.nowMs() / 1000);
  }

  /** Newest time that the ledger signed, epoch seconds: it never goes back. 0 before the first. */
  get signedTime(): number {
    return this.#follower?.checkpoints.floor.signed ?? 0;
  }

  /** How far the wall clock is behind what the ledger signed, seconds. */
  get clockBehindSeconds(): number {
    return this.#follower?.checkpoints.floor.behindSeconds() ?? 0;
  }

  /** The ledger contradicted itself, and nobody has looked into it yet. */
  get isDisputed(): boolean {
    return this.#follower?.checkpoints.isDisputed ?? false;
  }

  async refresh(maxAgeMs: number, timeoutMs: number = LIMITS.authorityWaitMs): Promise<void> {
    await this.#follower?.refresh({ maxAgeMs, timeoutMs });
    this.#watchClock();
  }

  async offer(updates: readonly Envelope[], checkpoint?: string): Promise<void> {
    if (updates.length === 0 && checkpoint === undefined) return;
    try {
      await this.#follower?.offer(updates, checkpoint);
    } catch (err) {
      // The work that came with it is judged by what can be believed.
      const isFork = isHyphaError(err, 'E_LOG_FORK');
      this.#deps.log.warn({ err, ...(isFork ? { alarm: true } : {}) }, 'news of the log refused');
    }
    this.#watchClock();
  }

  /** What a person has to look into, for the facts of the node. */
  alarms(): string[] {
    const alarms: string[] = [];
    const behind = this.clockBehindSeconds;
    if (behind > PROTOCOL_LIMITS.skewSeconds)
      alarms.push(`the clock is ${behind} s behind the ledger: fix NTP`);
    const { time } = this.newest() ?? {};
    const age = time === undefined ? 0 : this.nowSeconds() - time;
    if (age > LIMITS.headAgeSecondsMax)
      alarms.push(`nothing was heard of the ledger for ${age} s: new work will be refused`);
    if (this.isDisputed)
      alarms.push('the ledger contradicts itself: see evidence/ in the state of the identity');
    return alarms;
  }

  /** A refusal that depends on the clock says what the clock is. */
  explain(error: unknown, node: { readonly name: string }): unknown {
    if (!isHyphaError(error)) return error;
    const { code, message, where, details, hint } = error;
    if (code !== 'E_NOT_YET' && code !== 'E_EXPIRED' && code !== 'E_STALE_VIEW') return error;
    const wall = new Date(this.#deps.clock.nowMs()).toISOString();
    const behind = this.clockBehindSeconds;
    const ahead = this.#follower?.checkpoints.floor.aheadSeconds() ?? 0;
    const skew = PROTOCOL_LIMITS.skewSeconds;
    const off = behind > skew ? `${behind} s behind` : ahead > skew ? `${ahead} s ahead of` : '';
    const than = off === '' ? '' : `, ${off} what the ledger last signed: fix NTP on ${node.name}`;
    return new HyphaError(code, message, {
      cause: error,
      ...(where === undefined ? {} : { where }),
      ...(details === undefined ? {} : { details }),
      hint: `${hint}; the clock of ${node.name} says ${wall}${than}`,
    });
  }

  #watchClock(): void {
    const behindSeconds = this.clockBehindSeconds;
    const isBehind = behindSeconds > PROTOCOL_LIMITS.skewSeconds;
    if (isBehind && !this.#isClockSaid) {
      const message = 'the clock is behind what the ledger signed: fix NTP';
      this.#deps.log.error({ behindSeconds, alarm: true }, message);
    }
    this.#isClockSaid = isBehind;
  }
}
