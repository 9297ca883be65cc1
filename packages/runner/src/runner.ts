/**
 * A runner: takes hints from the queue, claims epochs at the supervisor, runs sagas. It owns nothing that
 * lasts. Redis may come and go; without the supervisor no step starts, and when that stays away the
 * process ends, so that it can be fenced and its run taken over (design §7).
 */
import { type Clock, type Fault, type Guest, runSaga } from '@hypha/engine';
import {
  CLAIM_REFUSALS,
  type ClaimAnswer,
  connectJournal,
  type JournalConnection,
} from '@hypha/journal/client';
import {
  fromProblem,
  type GuestRequest,
  HyphaError,
  isHyphaError,
  type Verifier,
} from '@hypha/protocol';
import type { Sals } from '@hypha/sal';
import type { Logger } from '@hypha/service/process';
import { openClaim } from './claimed-run.ts';
import type { RunnerConfig } from './config.ts';
import { KnownAuthority } from './known-authority.ts';
import { openQueueWorker, type QueueHint } from './queue-worker.ts';
import type { RunSecrets } from './run-secrets.ts';

/** The supervisor takes a runner that holds runs and is silent for some of these to be stopped. */
const BEAT_MS = 2_000;

export interface GuestSource {
  /** Starts a host ahead of the run that will need it. */
  warm(): void;
  openGuest(request: GuestRequest): Promise<Guest>;
  close(): Promise<void>;
}

export interface RunnerDeps {
  readonly config: RunnerConfig;
  readonly log: Logger;
  readonly sals: Sals;
  /** The one that `sals` asks; absent where they ask for none. */
  readonly secrets?: RunSecrets;
  readonly guests: GuestSource;
  readonly clock: Clock;
  readonly verifier: Verifier;
  /** Aborted: finish the steps in flight, start no other, let go of every run. */
  readonly signal: AbortSignal;
}

/**
 * Serves runs until drained, by `signal` or by the supervisor. Throws when the supervisor stays away or
 * refuses this runner, or when the engine may not go on: the process must then exit non-zero at once.
 */
export async function serveRuns(deps: RunnerDeps): Promise<void> {
  await new Runner(deps).serve();
}

class Runner {
  readonly #deps: RunnerDeps;
  readonly #authority: KnownAuthority;
  readonly #drain = new AbortController();
  readonly #failure = Promise.withResolvers<never>();
  readonly #drained = Promise.withResolvers<void>();
  // run → its cancel; known before the claim is answered
  readonly #cancels = new Map<string, AbortController>();
  #isBeating = false;

  constructor(deps: RunnerDeps) {
    this.#deps = deps;
    this.#authority = new KnownAuthority(deps.verifier);
    this.#failure.promise.catch(() => undefined);
  }

  async serve(): Promise<void> {
    const { config, log, guests, signal } = this.#deps;
    const drain = () => this.#startDrain();
    if (signal.aborted) return;
    signal.addEventListener('abort', drain, { once: true });
    guests.warm();
    const journal = await this.#connect();
    const beats = setInterval(() => this.#beat(journal), BEAT_MS);
    try {
      const queue = openQueueWorker({
        ...config,
        log,
        drain: this.#drain.signal,
        onHint: (hint) => this.#takeHint(journal, hint),
      });
      log.info({ node: config.node }, 'runner ready');
      await Promise.race([this.#drained.promise, this.#failure.promise]);
      await Promise.race([queue.close(), this.#failure.promise]);
    } finally {
      signal.removeEventListener('abort', drain);
      clearInterval(beats);
      journal.close();
      await guests.close();
    }
  }

  async #connect(): Promise<JournalConnection> {
    const { runner, token, journalSocket, reconnectMs } = this.#deps.config;
    return await connectJournal({
      socketPath: journalSocket,
      runner,
      token,
      pid: process.pid,
      reconnectMsMax: reconnectMs,
      onNotice: (notice) => {
        if (notice.notice === 'drain') return this.#startDrain();
        const reason = notice.notice === 'refuse' ? fromProblem(notice.problem) : undefined;
        this.#cancels.get(notice.run)?.abort(reason);
      },
      onLost: (error) => this.#failure.reject(error),
    });
  }

  /** While the supervisor is away one beat waits for it, like everything else. */
  #beat(journal: JournalConnection): void {
    if (this.#isBeating || this.#cancels.size === 0) return;
    this.#isBeating = true;
    journal.beat().then(
      () => {
        this.#isBeating = false;
      },
      // The connection is over: `onLost` has said so, or this process is about to end.
      () => undefined,
    );
  }

  #startDrain(): void {
    this.#drain.abort();
    this.#drained.resolve();
  }

  async #takeHint(journal: JournalConnection, hint: QueueHint): Promise<void> {
    const { run, epoch } = hint;
    if (this.#cancels.has(run)) {
      // A lock that was not renewed in time: the queue hands out again what is in hand here.
      this.#deps.log.info({ run, epoch }, 'queue job of a run in hand dropped');
      return;
    }
    const cancel = new AbortController();
    this.#cancels.set(run, cancel);
    try {
      const claim = await this.#claim(journal, hint);
      if (claim?.isCancelled) cancel.abort();
      if (claim !== undefined) await this.#run(journal, claim, cancel.signal);
    } catch (error) {
      // Nothing more may be touched: whoever started this process fences it and hands the run on.
      this.#deps.log.error({ run, epoch, err: error }, 'run abandoned');
      this.#failure.reject(error);
      await new Promise<never>(() => undefined);
    } finally {
      this.#cancels.delete(run);
      this.#deps.secrets?.release(run);
      journal.release(run);
    }
  }

  /**
   * Undefined when nothing was granted: the job is stale or was injected, or the node is not ready. After
   * any other refusal the supervisor may hold this runner to be the owner, so it throws.
   */
  async #claim(
    journal: JournalConnection,
    { run, epoch }: QueueHint,
  ): Promise<ClaimAnswer | undefined> {
    try {
      return await journal.claim(run, epoch);
    } catch (error) {
      if (!isHyphaError(error) || !CLAIM_REFUSALS.includes(error.code)) throw error;
      const alarm = error.code === 'E_UNAVAILABLE' ? {} : { alarm: 'refused-job' };
      this.#deps.log.warn({ ...alarm, run, epoch, err: error }, 'queue job dropped');
      return undefined;
    }
  }

  async #run(journal: JournalConnection, claim: ClaimAnswer, cancel: AbortSignal): Promise<void> {
    const { config, sals, guests, clock, verifier } = this.#deps;
    const { run, epoch } = claim;
    const log = this.#deps.log.child({ run, epoch });
    const { runner } = config;
    const checks = { verifier, authority: this.#authority, runner };
    const { grant, refusal } = openClaim(claim, checks);
    if (grant.node.id !== config.node) {
      throw new HyphaError('E_INTERNAL', `this runner is of ${config.node}, not ${grant.node.id}`);
    }
    if (refusal !== undefined) log.warn({ alarm: 'unverified-run', err: refusal }, 'run refused');
    this.#deps.secrets?.hold(journal, grant);
    const outcome = await runSaga({
      grant,
      journal: {
        recorded: claim.events,
        append: (bodies) => journal.append(run, epoch, bodies),
        readKept: (target) => journal.readKept(run, epoch, target),
      },
      sals,
      openGuest: (request) => guests.openGuest(request),
      clock,
      verifier,
      cancel,
      drain: this.#drain.signal,
      ...(refusal === undefined ? {} : { refusal }),
      onFault: (fault) => logFault(log, fault),
    });
    if (outcome.state === 'waiting') await journal.park(run, epoch, outcome.wakeAtMs);
    log.debug({ state: outcome.state }, 'run left');
  }
}

function logFault(log: Logger, { phase, step, verb, attempt, error }: Fault): void {
  log.warn({ phase, step, verb, attempt, err: error }, 'call failed');
}
