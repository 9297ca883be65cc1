import { getCompileCacheDir } from 'node:module';
import type { Boot, NodeKeys } from '@hypha/identity';
import { isClaimable, type Journal, openJournal } from '@hypha/journal';
import {
  HyphaError,
  isTerminal,
  type NodeFacts,
  type Protection,
  toProblem,
  type Verifier,
} from '@hypha/protocol';
import { COMMAND_ENV, detectCgroups, removeFenceGroup } from '@hypha/sal';
import {
  addRunRoutes,
  createServer,
  grantedKey,
  type HyphaServer,
  type Logger,
  readCa,
} from '@hypha/service';
import manifest from '../package.json' with { type: 'json' };
import { NodeAdmission } from './admission.ts';
import { addNodeRoutes } from './api/node-routes.ts';
import { runSource } from './api/run-source.ts';
import { addSecretRoutes } from './api/secret-routes.ts';
import { NodeCancellation } from './cancellation.ts';
import type { Clock } from './clock.ts';
import type { SupervisorConfig } from './config.ts';
import { Dispatcher } from './dispatcher.ts';
import { FleetLink } from './fleet-link.ts';
import { HopelessRuns } from './hopeless-runs.ts';
import { addLogGauges } from './log-gauges.ts';
import { NodeInventory, type NodeSals } from './node-inventory.ts';
import { readProtection } from './node-protection.ts';
import { Reconciler } from './reconciler.ts';
import type { RedisUsers } from './redis-users.ts';
import { ResourceReader } from './resource-reader.ts';
import { Revocations } from './revocations.ts';
import { RunClaims } from './run-claims.ts';
import { addRunGauges } from './run-gauges.ts';
import { QUEUE_NAME, queuePrefix, RunQueue } from './run-queue.ts';
import { RunTakeover } from './run-takeover.ts';
import { RunnerGate } from './runner-gate.ts';
import { RunnerPool } from './runner-pool.ts';
import { RunnerRecords } from './runner-record.ts';
import type { SecretVault } from './secret-vault.ts';
import { Settlement } from './settlement.ts';
import type { StateFolder } from './state-folder.ts';
import { LIMITS } from './supervisor-limits.ts';
import { Sweep } from './sweep.ts';

export interface SupervisorParts {
  readonly config: SupervisorConfig;
  readonly folder: StateFolder;
  readonly keys: NodeKeys;
  readonly boot: Boot;
  readonly host: NodeSals;
  /** Undefined: Redis has no users. */
  readonly redisUsers: RedisUsers | undefined;
  /** The one that `host` gives containers their secrets from. */
  readonly secrets: SecretVault;
  /** Program and arguments of a runner process; its configuration comes by environment. */
  readonly runner: { readonly command: string; readonly argv: readonly string[] };
  readonly verifier: Verifier;
  readonly clock: Clock;
  readonly log: Logger;
}

/**
 * The node's daemon, whole: see design §7 to §10. Everything it promised before it was killed is in the
 * journal, and starting is the same as going on.
 */
export class Supervisor {
  readonly #parts: SupervisorParts;
  readonly #journal: Journal;
  readonly #fleet: FleetLink;
  readonly #revocations: Revocations;
  readonly #queue: RunQueue;
  readonly #dispatcher: Dispatcher;
  readonly #reconciler: Reconciler;
  readonly #settlement: Settlement;
  readonly #inventory: NodeInventory;
  readonly #takeover: RunTakeover;
  readonly #pool: RunnerPool;
  readonly #gate: RunnerGate;
  readonly #cancellation: NodeCancellation;
  readonly #sweep: Sweep;
  readonly #server: HyphaServer;
  readonly #cgroup2: string | undefined;
  #url = '';
  /** Monotonic. */
  readonly #openedAtMs: number;
  #admission: NodeAdmission | undefined;

  static async start(parts: SupervisorParts): Promise<Supervisor> {
    const { cgroup2 } = await detectCgroups();
    const inventory = new NodeInventory(parts.host);
    let fleet: FleetLink | undefined;
    const journal = await openJournal({
      file: parts.folder.journal,
      node: parts.keys.nodeId,
      signer: parts.keys.signer,
      verifier: parts.verifier,
      nowMs: () => parts.clock.nowMs(),
      authoritySeq: () => fleet?.authoritySeq ?? 0,
      useOf: (resource) => inventory.useOf(resource),
    });
    const supervisor = new Supervisor(parts, { journal, inventory, cgroup2 });
    fleet = supervisor.#fleet;
    await supervisor.#start();
    return supervisor;
  }

  private constructor(
    parts: SupervisorParts,
    opened: { journal: Journal; inventory: NodeInventory; cgroup2: string | undefined },
  ) {
    const { config, folder, keys, boot, host, secrets, verifier, clock, log } = parts;
    const { journal, inventory, cgroup2 } = opened;
    const { sals } = host;
    const node = keys.origin;
    this.#parts = parts;
    this.#journal = journal;
    this.#cgroup2 = cgroup2;
    this.#openedAtMs = clock.monotonicMs();
    secrets.attach(journal);
    const user = parts.redisUsers?.supervisor;
    this.#queue = new RunQueue({ redis: config.redis, user, node, log });
    const hopeless = new HopelessRuns({ journal, log });
    this.#dispatcher = new Dispatcher({
      ...{ journal, queue: this.#queue, hopeless, clock, log },
      slots: () => this.#pool.connected * config.runsPerRunner,
      isRefused: (run) => this.#revocations.reasonOf(run) !== undefined,
      replaceIdle: () => this.#pool.replaceIdle(),
    });
    this.#reconciler = new Reconciler({ journal, sals, log, clock, pace: LIMITS });
    this.#settlement = new Settlement({ journal, reconciler: this.#reconciler, log });
    this.#inventory = inventory;
    this.#takeover = new RunTakeover({
      journal,
      dispatcher: this.#dispatcher,
      reconciler: this.#reconciler,
      hopeless,
      bootId: boot.bootId,
      log,
    });
    this.#fleet = new FleetLink({
      ...{ folder, keys, boot, journal, verifier, clock, log },
      joinToken: config.joinToken,
      genesis: config.genesis,
      ledgerUrl: config.ledger,
      coordinatorUrl: config.coordinator,
      ca: readCa(config.tlsCa),
      facts: () => this.#facts(),
      sample: async () => ({
        ...(await inventory.sample(journal, this.#fleet.authoritySeq)),
        facts: await this.#facts(),
      }),
      onAuthority: () => this.#revocations.kick(),
    });
    this.#revocations = new Revocations({
      ...{ journal, verifier, log },
      membership: () => this.#fleet.getMembership(),
      authority: () => this.#fleet.current(),
      notify: (runner, run, reason) =>
        this.#pool.notify(runner, { notice: 'refuse', run, problem: toProblem(reason) }),
      kick: () => this.#dispatcher.kick(),
    });
    this.#pool = new RunnerPool({
      records: new RunnerRecords(folder.runners),
      command: this.#runnerCommand(),
      bootId: boot.bootId,
      cgroup2,
      group: folder.fenceGroup,
      log,
      clock,
      isHolding: (runner) => holdsRuns(journal, runner),
      onDead: (runner) => this.#takeover.takeOverFrom(runner),
    });
    this.#gate = new RunnerGate({
      socketPath: folder.socket,
      pool: this.#pool,
      log,
      claims: new RunClaims({
        journal,
        reconciler: this.#reconciler,
        secrets,
        revocations: this.#revocations,
        dispatcher: this.#dispatcher,
        notify: (runner, notice) => this.#pool.notify(runner, notice),
        bootId: boot.bootId,
        self: () => this.#fleet.getMembership(),
        authority: () => this.#fleet.current().updates,
        log,
      }),
    });
    this.#cancellation = new NodeCancellation({
      ...{ journal, verifier, clock, log, fleetLog: this.#fleet.fleetLog },
      membership: () => this.#fleet.getMembership(),
      notify: (runner, notice) => this.#pool.notify(runner, notice),
      kick: () => this.#dispatcher.kick(),
    });
    this.#sweep = new Sweep({
      journal,
      clock,
      log,
      signedTime: () => this.#fleet.fleetLog.signedTime,
      settle: () => {
        this.#dispatcher.refill();
        this.#settlement.sweep();
        // None of these rejects.
        void this.#takeover.sweep(this.#pool.ids);
        void this.#pool.sweep();
        void secrets.sweep();
        void this.#dateJournal();
      },
    });
    this.#server = createServer({
      name: 'hypha-supervisor',
      version: manifest.version,
      log,
      listener: config,
      findKey: (keyid) =>
        grantedKey(this.#fleet.current(), keyid, Math.floor(clock.nowMs() / 1000)),
      checkReady: async () => {
        this.#fleet.current();
        if (this.#fleet.fleetLog.newest() === null)
          throw new HyphaError('E_UNAVAILABLE', 'no signed head of the log was read yet');
        await journal.ping();
      },
    });
  }

  get url(): string {
    return this.#url;
  }

  /**
   * Stops taking work, lets runners finish their step, then lets go of everything. Runs that are not done go
   * on at the next start. With `onStop: "stop"` containers are stopped too.
   */
  async close(): Promise<void> {
    const { config, log, folder, secrets } = this.#parts;
    log.info('supervisor stops');
    await this.#server.close();
    this.#sweep.stop();
    await this.#pool.stop();
    await Promise.all([this.#settlement.stop(), this.#reconciler.stop()]);
    if (config.onStop === 'stop') await this.#reconciler.halt();
    await secrets.close(config.onStop);
    await this.#fleet.stop();
    await this.#gate.close();
    await this.#dispatcher.close();
    await this.#revocations.idle();
    await this.#queue.close();
    await this.#journal.close();
    await removeFenceGroup(this.#cgroup2, folder.fenceGroup).catch((err: unknown) =>
      log.debug({ err }, 'fence group stays'),
    );
  }

  async #start(): Promise<void> {
    const { config } = this.#parts;
    const admission = this.#openAdmission();
    this.#admission = admission;
    this.#journal.subscribe((entry, events) => {
      const accepted = events.find(({ body }) => body.type === 'accepted')?.body;
      const isNew = accepted !== undefined;
      // The authority has grown between the verdict and the journal.
      if (accepted?.type === 'accepted' && accepted.authoritySeq < this.#fleet.authoritySeq)
        this.#revocations.kick();
      if (isNew || isTerminal(entry.state)) this.#dispatcher.kick();
      this.#fleet.kick();
    });
    this.#fleet.start({ admission, cancellation: this.#cancellation });
    await this.#pool.recover();
    await this.#takeover.recover(this.#pool.ids);
    await this.#reconciler.start();
    this.#settlement.start();
    await this.#gate.open();
    this.#url = await this.#server.listen({ host: config.host, port: config.port });
    this.#sweep.start();
    await this.#pool.start(config.runners);
  }

  /** Never rejects: the next sweep tries again. */
  async #dateJournal(): Promise<void> {
    const { log } = this.#parts;
    try {
      if (await this.#admission?.dateJournal()) log.info('the beginning of the journal is known');
    } catch (err) {
      log.error({ err }, 'journal not dated');
    }
  }

  #openAdmission(): NodeAdmission {
    const { keys, host, secrets, verifier, clock } = this.#parts;
    const journal = this.#journal;
    const admission = new NodeAdmission({
      journal,
      log: this.#fleet.fleetLog,
      verifier,
      clock,
      membership: () => this.#fleet.getMembership(),
      capacity: () => this.#inventory.capacity(),
      secrets,
      authorityAgeMs: LIMITS.authorityAgeMs,
      openedAtMs: this.#openedAtMs,
    });
    addRunRoutes(this.#server, runSource(journal, keys.nodeId));
    addSecretRoutes(this.#server, journal);
    addNodeRoutes(this.#server, {
      node: keys.nodeId,
      admission,
      cancellation: this.#cancellation,
      resources: new ResourceReader({ journal, sals: host.sals, reconciler: this.#reconciler }),
      facts: async () => ({
        ...(await this.#facts()),
        protection: await this.#readProtection(),
      }),
    });
    addLogGauges(this.#server, this.#fleet);
    addRunGauges(this.#server, {
      ...{ journal, cancellation: this.#cancellation },
      ...{ takeover: this.#takeover, pool: this.#pool },
    });
    return admission;
  }

  async #facts(): Promise<NodeFacts> {
    const facts = await this.#inventory.facts();
    const alarms = this.#fleet.fleetLog.alarms();
    return alarms.length === 0 ? facts : { ...facts, alarms };
  }

  async #readProtection(): Promise<Protection[]> {
    const { config, folder, host } = this.#parts;
    const runners = await new RunnerRecords(folder.runners).list();
    return await readProtection({
      ...{ config, folder },
      hasRealSals: host.sals.list.some(({ status }) => status.state === 'real'),
      runners: runners.flatMap(({ pid }) => pid ?? []),
    });
  }

  #runnerCommand() {
    const { config, folder, keys, host, redisUsers, runner } = this.#parts;
    const user = redisUsers?.runner;
    const cache = getCompileCacheDir();
    return {
      ...runner,
      idVariable: 'HYPHA_RUNNER_RUNNER',
      tokenVariable: 'HYPHA_RUNNER_TOKEN',
      env: {
        ...COMMAND_ENV,
        ...(cache === undefined ? {} : { NODE_COMPILE_CACHE: cache }),
        HYPHA_RUNNER_JOURNAL_SOCKET: folder.socket,
        HYPHA_RUNNER_REDIS: config.redis,
        ...(user === undefined
          ? {}
          : { HYPHA_RUNNER_REDIS_USER: user.name, HYPHA_RUNNER_REDIS_PASSWORD: user.password }),
        HYPHA_RUNNER_QUEUE_NAME: QUEUE_NAME,
        HYPHA_RUNNER_QUEUE_PREFIX: queuePrefix(keys.origin),
        HYPHA_RUNNER_NODE: keys.nodeId,
        HYPHA_RUNNER_CONCURRENCY: String(config.runsPerRunner),
        HYPHA_RUNNER_SALS: JSON.stringify(host.runnerConfig),
        HYPHA_RUNNER_LOG_LEVEL: config.logLevel,
      },
    };
  }
}

function holdsRuns(journal: Journal, runner: string): boolean {
  return journal
    .listLanes()
    .some(({ runs }) => runs.some((entry) => entry.holder === runner && isClaimable(entry)));
}
