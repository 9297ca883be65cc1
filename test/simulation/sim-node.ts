import { type Journal, openJournal } from '@hypha/journal';
import type { Authority, Envelope, ScriptPayload, Signer } from '@hypha/protocol';
import { digestOf, fromBase64, isTerminal, nodeIdOf, runIdOf } from '@hypha/protocol';
import { generateKey, nodeVerifier } from '@hypha/protocol/node';
import type { SecretFiles } from '@hypha/sal';
import { createLogger } from '@hypha/service/process';
import { MemoryDatabase } from '@hypha/store/testing';
import type { SeededRandom } from '@hypha/testkit';
import { Dispatcher } from '../../packages/supervisor/src/dispatcher.ts';
import { HopelessRuns } from '../../packages/supervisor/src/hopeless-runs.ts';
import { Reconciler } from '../../packages/supervisor/src/reconciler.ts';
import { RunClaims } from '../../packages/supervisor/src/run-claims.ts';
import { RunTakeover } from '../../packages/supervisor/src/run-takeover.ts';
import { Settlement } from '../../packages/supervisor/src/settlement.ts';
import { LIMITS } from '../../packages/supervisor/src/supervisor-limits.ts';
import type { SimClock } from './sim-clock.ts';
import { SimQueue } from './sim-queue.ts';
import { SimRunner } from './sim-runner.ts';
import { type Actor, SimWorld } from './sim-world.ts';

const RUNNERS = 2;
const SLOTS = 3;
/** How long a supervisor waits for a runner that says nothing. */
const SILENT_MS_MAX = 10_000;
const LOOK_MS = 1_000;
const CAPACITY = { milliCpus: 1000, memoryBytes: 2 ** 30, storageBytes: 2 ** 30 };
const NO_SECRETS: SecretFiles = { provide: async () => new Map() };
const silent = createLogger({ name: 'simulation', level: 'silent' });

/** One life of the supervisor: everything in it that is the product's own. */
interface Life extends Actor {
  isDead: boolean;
  readonly died: PromiseWithResolvers<void>;
  readonly journal: Journal;
  readonly dispatcher: Dispatcher;
  readonly reconciler: Reconciler;
  readonly settlement: Settlement;
  readonly takeover: RunTakeover;
  readonly claims: RunClaims;
  // Runners that have said hello
  readonly guests: Set<SimRunner>;
}

/**
 * A node: the supervisor's real rules and the journal's real tables, with simulated processes, queue and things
 * around them. The network, admission's verdict and the disk are left out.
 */
export class SimNode {
  readonly id: string;
  readonly world: SimWorld;
  readonly queue: SimQueue;
  runners: SimRunner[] = [];
  // Dead, and what they owned is being given away
  readonly #burying = new Set<string>();
  readonly #clock: SimClock;
  readonly #random: SeededRandom;
  readonly #authority: Authority;
  readonly #signer: Signer;
  readonly #database = new MemoryDatabase();
  #life: Life | undefined;
  #lives = 0;
  #started = 0;
  #boots = 1;
  #ready = Promise.withResolvers<void>();

  constructor(options: {
    clock: SimClock;
    random: SeededRandom;
    authority: Authority;
    signer: Signer;
  }) {
    this.#clock = options.clock;
    this.#random = options.random;
    this.#authority = options.authority;
    this.#signer = options.signer;
    this.id = nodeIdOf(nodeVerifier, this.#signer.publicKey);
    this.world = new SimWorld(this.#clock, this.#random.fork());
    this.queue = new SimQueue(this.#random.fork());
  }

  /** Throws while the supervisor is down. */
  get life(): Life {
    if (this.#life === undefined) throw new Error('the supervisor is down');
    return this.#life;
  }

  get isUp(): boolean {
    return this.#life !== undefined;
  }

  async start(): Promise<void> {
    const life = await this.#openLife();
    const { journal, dispatcher, takeover, reconciler, settlement } = life;
    journal.subscribe((entry, events) => {
      const isNew = events.some(({ body }) => body.type === 'accepted');
      if (isNew || isTerminal(entry.state)) dispatcher.kick();
    });
    const expected = this.runners.filter(({ isDead }) => !isDead);
    await takeover.recover(new Set(expected.map(({ name }) => name)));
    await reconciler.start();
    settlement.start();
    this.#life = life;
    this.#ready.resolve();
    void this.#sweep(life);
    for (const runner of expected) void this.#greet(life, runner);
    while (this.runners.filter(({ isDead }) => !isDead).length < RUNNERS) this.#startRunner(life);
    dispatcher.kick();
  }

  /** `kill -9` of the supervisor. */
  crash(): void {
    const life = this.#life;
    if (life === undefined) return;
    this.#life = undefined;
    this.#ready = Promise.withResolvers<void>();
    life.isDead = true;
    this.world.dropHands(life.name);
    void life.dispatcher.close();
    life.died.resolve();
  }

  killRunner(runner: SimRunner): void {
    if (runner.isDead) return;
    runner.kill();
    void this.#bury(runner);
  }

  /** The power is cut. */
  reboot(): void {
    this.crash();
    for (const runner of this.runners) runner.kill();
    this.#boots += 1;
    this.world.reboot();
  }

  /** Admits signed work as the product's admission does once it has judged it. */
  async admit(
    envelope: Envelope,
    payload: ScriptPayload,
    keyids: readonly string[],
  ): Promise<string> {
    const digest = digestOf(nodeVerifier, envelope.payloadType, fromBase64(envelope.payload));
    const run = runIdOf(nodeVerifier, digest, this.id);
    const { seq } = this.#authority;
    const admission = { run, digest, envelope, payload, keyids, authoritySeq: seq };
    await this.life.journal.admit({ ...admission, source: 'http', capacity: CAPACITY });
    return run;
  }

  async cancel(digest: string, keyids: readonly string[]): Promise<void> {
    const { journal, dispatcher } = this.life;
    const nowMs = this.#clock.nowMs();
    const { runs } = await journal.cancel({
      ...{ digest: digest.split('').reverse().join(''), target: digest, realm: 'default', keyids },
      ...{ mayCancelAny: false, receivedAtMs: nowMs, forgetAtSeconds: nowMs / 1000 + 100_000 },
    });
    for (const { run, holder } of runs) {
      this.runners.find(({ name }) => name === holder)?.notify({ notice: 'cancel', run });
    }
    dispatcher.kick();
  }

  async close(): Promise<void> {
    const life = this.#life;
    this.crash();
    await life?.dispatcher.close();
    for (const runner of this.runners) runner.kill();
  }

  async #openLife(): Promise<Life> {
    this.#lives += 1;
    const state = { isDead: false };
    const died = Promise.withResolvers<void>();
    const actor: Actor = {
      name: `supervisor-${this.#lives}`,
      pass: async () => {
        if (state.isDead) await new Promise<never>(() => undefined);
      },
    };
    const clock = {
      nowMs: () => this.#clock.nowMs(),
      monotonicMs: () => this.#clock.monotonicMs(),
      jitter: () => this.#clock.jitter(),
      sleep: async (ms: number, signal: AbortSignal) => {
        await this.#clock.sleep(ms, signal).catch(() => undefined);
        await actor.pass();
      },
    };
    const journal = await openJournal({
      file: ':memory:',
      openStore: ({ migrations }) =>
        this.#database.open({ migrations, isDead: () => state.isDead }),
      node: this.id,
      signer: this.#signer,
      verifier: nodeVerifier,
      nowMs: clock.nowMs,
      authoritySeq: () => this.#authority.seq,
      useOf: () => ({ milliCpus: 0, memoryBytes: 0, storageBytes: 1 }),
    });
    const shared = { journal, log: silent, clock };
    const hopeless = new HopelessRuns(shared);
    const dispatcher = new Dispatcher({
      ...{ ...shared, queue: this.queue, hopeless },
      slots: () => this.runners.filter(({ isDead }) => !isDead).length * SLOTS,
      replaceIdle: () => undefined,
      isRefused: () => false,
    });
    const reconciler = new Reconciler({ ...shared, sals: this.world.sals(actor), pace: LIMITS });
    const bootId = `boot-${this.#boots}`;
    const claims = new RunClaims({
      ...{ ...shared, reconciler, dispatcher, bootId, secrets: NO_SECRETS },
      revocations: { checkMayAppend: () => undefined, reasonOf: () => undefined },
      notify: (name, notice) => this.runners.find((each) => each.name === name)?.notify(notice),
      self: () => ({ id: this.id, name: 'node-1', labels: {}, realms: ['*'] }),
      authority: () => this.#authority.updates,
    });
    return Object.assign(state, {
      ...{ ...actor, died, journal, dispatcher, reconciler, claims, guests: new Set<SimRunner>() },
      settlement: new Settlement({ ...shared, reconciler }),
      takeover: new RunTakeover({ ...shared, dispatcher, reconciler, hopeless, bootId }),
    });
  }

  #startRunner(life: Life): void {
    this.#started += 1;
    const runner = new SimRunner(`runner-${this.#started}`, (actor) => this.world.sals(actor), {
      clock: this.#clock,
      random: this.#random.fork(),
      queue: this.queue,
      ask: (of, question) => this.#ask(of, question),
      onExit: (of) => void this.#bury(of),
    });
    this.runners = [...this.runners, runner];
    void this.#greet(life, runner).then(() => runner.serve(SLOTS));
  }

  /** The runner says hello, with what it holds. One that holds what is another's has to die. */
  async #greet(life: Life, runner: SimRunner): Promise<void> {
    await this.#clock.sleep(this.#random.int(5, 500));
    await runner.pass();
    if (life.isDead) return;
    try {
      const holding = [...runner.holding].map(([run, epoch]) => ({ run, epoch }));
      await life.claims.reattach(runner.name, holding);
      life.guests.add(runner);
    } catch {
      this.killRunner(runner);
    }
  }

  /** What fencing does once the cgroup is empty, and another runner in place of the dead one. */
  async #bury(runner: SimRunner): Promise<void> {
    this.world.dropHands(runner.name);
    const life = this.#life;
    this.#burying.add(runner.name);
    await this.#clock.sleep(this.#random.int(1, 50));
    this.runners = this.runners.filter((each) => each !== runner);
    if (life !== undefined && !life.isDead) await life.takeover.takeOverFrom(runner.name);
    this.#burying.delete(runner.name);
    if (life?.isDead === false) this.#startRunner(life);
  }

  async #ask<T>(runner: SimRunner, question: (claims: RunClaims) => Promise<T>): Promise<T> {
    for (;;) {
      await this.#ready.promise;
      const life = this.#life;
      if (life === undefined) continue;
      if (!life.guests.has(runner)) {
        await Promise.race([this.#clock.sleep(LOOK_MS), life.died.promise]);
        await runner.pass();
        continue;
      }
      const lost = life.died.promise.then((): 'lost' => 'lost');
      const answer = question(life.claims).then(
        (value) => ({ value }),
        (error: unknown) => ({ error }),
      );
      const outcome = await Promise.race([answer, lost]);
      await runner.pass();
      if (outcome === 'lost') continue;
      if ('error' in outcome) throw outcome.error;
      return outcome.value;
    }
  }

  /** What the supervisor does now and then, and the end of runners that say nothing. */
  async #sweep(life: Life): Promise<void> {
    for (let look = 1; ; look++) {
      await this.#clock.sleep(LOOK_MS);
      if (life.isDead) return;
      for (const runner of this.runners) {
        const { stoppedAtMs } = runner;
        const isSilent =
          stoppedAtMs !== undefined && this.#clock.nowMs() - stoppedAtMs > SILENT_MS_MAX;
        if (isSilent) this.killRunner(runner);
      }
      if (look % (LIMITS.sweepMs / LOOK_MS) === 0) {
        const living = this.runners.filter(({ isDead }) => !isDead).map(({ name }) => name);
        void life.takeover.sweep(new Set([...living, ...this.#burying]));
        life.dispatcher.refill();
        life.settlement.sweep();
      }
    }
  }
}

export function newSigner(): Signer {
  return generateKey().signer;
}
