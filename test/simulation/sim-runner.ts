import { runSaga } from '@hypha/engine';
import type { ClaimAnswer, SupervisorNotice } from '@hypha/journal/client';
import { fromProblem, GuestDisplaced, isHyphaError } from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import type { Sals } from '@hypha/sal';
import type { SeededRandom } from '@hypha/testkit';
import { openClaim } from '../../packages/runner/src/claimed-run.ts';
import { KnownAuthority } from '../../packages/runner/src/known-authority.ts';
import type { RunClaims } from '../../packages/supervisor/src/run-claims.ts';
import type { SimClock } from './sim-clock.ts';
import { SimGuest } from './sim-guest.ts';
import type { SimJob, SimQueue } from './sim-queue.ts';
import type { Actor } from './sim-world.ts';

/** As the product's: after these the run is nobody's. */
const NOT_GRANTED = ['E_STALE_EPOCH', 'E_NOT_FOUND', 'E_UNAVAILABLE'];
/** A message on the socket, milliseconds. */
const MESSAGE_MS_MAX = 4;

interface RunnerDeps {
  readonly clock: SimClock;
  readonly random: SeededRandom;
  readonly queue: SimQueue;
  /** Asks whatever supervisor there is, again when it dies before it has answered. */
  readonly ask: <T>(runner: SimRunner, question: (claims: RunClaims) => Promise<T>) => Promise<T>;
  /** Its process has ended by itself. */
  readonly onExit: (runner: SimRunner) => void;
}

/** What a guest's host can die of, as its guest sees it. */
interface Host {
  lost: Error | undefined;
}

/**
 * A runner process: takes jobs, claims, runs the engine. Killed, it does nothing more; stopped, it goes on where it
 * was as soon as it is let.
 */
export class SimRunner implements Actor {
  readonly name: string;
  readonly sals: Sals;
  // run → its epoch
  readonly holding = new Map<string, number>();
  #isDead = false;
  #stopped: PromiseWithResolvers<void> | undefined;
  stoppedAtMs: number | undefined;
  readonly #deps: RunnerDeps;
  readonly #authority = new KnownAuthority(nodeVerifier);
  readonly #cancels = new Map<string, AbortController>();
  readonly #hosts = new Set<Host>();

  constructor(name: string, openSals: (actor: Actor) => Sals, deps: RunnerDeps) {
    this.name = name;
    this.#deps = deps;
    this.sals = openSals(this);
  }

  get isDead(): boolean {
    return this.#isDead;
  }

  kill(): void {
    this.#isDead = true;
    this.#deps.queue.abandon(this.name);
  }

  stop(): void {
    this.#stopped ??= Promise.withResolvers<void>();
    this.stoppedAtMs ??= this.#deps.clock.nowMs();
  }

  resume(): void {
    this.#stopped?.resolve();
    this.#stopped = undefined;
    this.stoppedAtMs = undefined;
  }

  /** One of its guests takes their host down, and the others with it. */
  loseHost(random: SeededRandom): boolean {
    const hosts = [...this.#hosts];
    if (hosts.length === 0) return false;
    const guilty = random.pick(hosts);
    for (const host of hosts)
      host.lost = host === guilty ? new Error('killed') : new GuestDisplaced();
    this.#hosts.clear();
    return true;
  }

  async pass(): Promise<void> {
    while (this.#stopped !== undefined) await this.#stopped.promise;
    if (this.#isDead) await new Promise<never>(() => undefined);
  }

  notify(notice: SupervisorNotice): void {
    if (notice.notice === 'drain') return;
    const reason = notice.notice === 'refuse' ? fromProblem(notice.problem) : undefined;
    this.#cancels.get(notice.run)?.abort(reason);
  }

  /** @param slots runs at once */
  serve(slots: number): void {
    for (let slot = 0; slot < slots; slot++) void this.#serveSlot();
  }

  async #serveSlot(): Promise<void> {
    for (;;) {
      const job = await this.#deps.queue.take(this.name);
      await this.pass();
      await this.#work(job);
      await this.pass();
      this.#deps.queue.complete(job);
    }
  }

  async #work(job: SimJob): Promise<void> {
    if (this.#cancels.has(job.run)) return;
    const cancel = new AbortController();
    this.#cancels.set(job.run, cancel);
    try {
      const claim = await this.#claim(job);
      if (claim?.isCancelled) cancel.abort();
      if (claim !== undefined) await this.#run(claim, cancel.signal);
    } catch {
      await this.pass();
      this.kill();
      this.#deps.onExit(this);
      await new Promise<never>(() => undefined);
    } finally {
      this.#cancels.delete(job.run);
      this.holding.delete(job.run);
    }
  }

  async #claim({ run, epoch }: SimJob): Promise<ClaimAnswer | undefined> {
    try {
      const answer = await this.#ask((claims) =>
        claims.claim(this.name, { method: 'claim', run, epoch }),
      );
      this.holding.set(run, epoch);
      return answer;
    } catch (error) {
      if (isHyphaError(error) && NOT_GRANTED.includes(error.code)) return undefined;
      throw error;
    }
  }

  async #run(claim: ClaimAnswer, cancel: AbortSignal): Promise<void> {
    const { run, epoch } = claim;
    const { grant, refusal } = openClaim(claim, {
      verifier: nodeVerifier,
      authority: this.#authority,
      runner: this.name,
    });
    let after = claim.events.length;
    const outcome = await runSaga({
      grant,
      journal: {
        recorded: claim.events,
        append: async (bodies) => {
          const request = { method: 'append' as const, run, epoch, after, bodies: [...bodies] };
          const { seq } = await this.#ask((claims) => claims.append(this.name, request));
          after = seq;
        },
        readKept: async (target) => {
          const request = { method: 'read-kept' as const, run, epoch, target };
          return (await this.#ask((claims) => claims.readKept(this.name, request))).events;
        },
      },
      sals: this.sals,
      openGuest: async () => this.#openGuest(),
      clock: {
        nowMs: () => this.#deps.clock.nowMs(),
        monotonicMs: () => this.#deps.clock.monotonicMs(),
        jitter: () => this.#deps.clock.jitter(),
        sleep: async (ms, signal) => {
          await this.#deps.clock.sleep(ms, signal);
          await this.pass();
        },
      },
      verifier: nodeVerifier,
      cancel,
      drain: new AbortController().signal,
      ...(refusal === undefined ? {} : { refusal }),
    });
    await this.pass();
    if (outcome.state !== 'waiting') return;
    const request = { method: 'park' as const, run, epoch, after, wakeAtMs: outcome.wakeAtMs };
    await this.#ask((claims) => claims.park(this.name, request));
  }

  #openGuest(): SimGuest {
    const host: Host = { lost: undefined };
    this.#hosts.add(host);
    return new SimGuest(
      () => host.lost,
      () => this.#hosts.delete(host),
    );
  }

  async #ask<T>(question: (claims: RunClaims) => Promise<T>): Promise<T> {
    const { clock, random } = this.#deps;
    await clock.sleep(random.int(0, MESSAGE_MS_MAX));
    await this.pass();
    try {
      return await this.#deps.ask(this, question);
    } finally {
      await clock.sleep(random.int(0, MESSAGE_MS_MAX));
      await this.pass();
    }
  }
}
