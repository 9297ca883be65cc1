import type { Boot, NodeKeys } from '@hypha/identity';
import { readFacts } from '@hypha/identity';
import { isClaimable, type Journal, openJournal, type RunEntry } from '@hypha/journal';
import {
  type DesiredResource,
  isTerminal,
  type NodeFacts,
  type ResourceLimits,
  type Verifier,
} from '@hypha/protocol';
import { COMMAND_ENV, detectCgroups, removeFenceGroup, type Sals } from '@hypha/sal';
import { createServer, type HyphaServer, type Logger } from '@hypha/service';
import manifest from '../package.json' with { type: 'json' };
import { NodeAdmission } from './admission.ts';
import { addNodeRoutes } from './api/node-routes.ts';
import { addRunRoutes } from './api/run-routes.ts';
import type { Clock } from './clock.ts';
import type { SupervisorConfig } from './config.ts';
import { Dispatcher } from './dispatcher.ts';
import { FleetLink } from './fleet-link.ts';
import { Reconciler } from './reconciler.ts';
import { ResourceReader } from './resource-reader.ts';
import { RunClaims } from './run-claims.ts';
import { QUEUE_NAME, queuePrefix, RunQueue } from './run-queue.ts';
import { RunnerGate } from './runner-gate.ts';
import { RunnerPool } from './runner-pool.ts';
import { RunnerRecords } from './runner-record.ts';
import { Settlement } from './settlement.ts';
import type { StateFolder } from './state-folder.ts';
import { LIMITS } from './supervisor-limits.ts';
import { Sweep } from './sweep.ts';

/** This machine's SALs, opened. */
export interface NodeSals {
  readonly sals: Sals;
  /** All there is for volumes and images, bytes. */
  readonly storageBytes: number;
  /** What a runner needs to open the same ones. */
  readonly runnerConfig: unknown;
}

export interface SupervisorParts {
  readonly config: SupervisorConfig;
  readonly folder: StateFolder;
  readonly keys: NodeKeys;
  readonly boot: Boot;
  readonly host: NodeSals;
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
  readonly #queue: RunQueue;
  readonly #dispatcher: Dispatcher;
  readonly #reconciler: Reconciler;
  readonly #settlement: Settlement;
  readonly #pool: RunnerPool;
  readonly #gate: RunnerGate;
  readonly #sweep: Sweep;
  readonly #server: HyphaServer;
  readonly #cgroup2: string | undefined;
  #url = '';
  #machine: Promise<NodeFacts> | undefined;

  static async start(parts: SupervisorParts): Promise<Supervisor> {
    const { cgroup2 } = await detectCgroups();
    let fleet: FleetLink | undefined;
    const journal = await openJournal({
      file: parts.folder.journal,
      node: parts.keys.nodeId,
      signer: parts.keys.signer,
      verifier: parts.verifier,
      nowMs: () => parts.clock.nowMs(),
      authoritySeq: () => fleet?.authoritySeq ?? 0,
      useOf: (resource) => useOf(parts.host.sals, resource),
    });
    const supervisor = new Supervisor(parts, journal, cgroup2);
    fleet = supervisor.#fleet;
    await supervisor.#start();
    return supervisor;
  }

  private constructor(parts: SupervisorParts, journal: Journal, cgroup2: string | undefined) {
    const { config, folder, keys, boot, host, verifier, clock, log } = parts;
    const { sals } = host;
    const node = keys.nodeId;
    this.#parts = parts;
    this.#journal = journal;
    this.#cgroup2 = cgroup2;
    this.#queue = new RunQueue({ redis: config.redis, node, log });
    this.#dispatcher = new Dispatcher({ journal, queue: this.#queue, log });
    this.#reconciler = new Reconciler({ journal, sals, log, clock });
    this.#settlement = new Settlement({ journal, reconciler: this.#reconciler, log });
    this.#fleet = new FleetLink({
      ...{ folder, keys, boot, journal, verifier, clock, log },
      joinToken: config.joinToken,
      ledgerUrl: config.ledger,
      coordinatorUrl: config.coordinator,
      facts: () => this.#facts(),
      sample: () => this.#sample(),
    });
    this.#pool = new RunnerPool({
      records: new RunnerRecords(folder.runners),
      command: this.#runnerCommand(),
      bootId: boot.bootId,
      cgroup2,
      group: folder.fenceGroup,
      log,
      clock,
      onDead: (runner) => this.#takeOverFrom(runner),
    });
    this.#gate = new RunnerGate({
      socketPath: folder.socket,
      pool: this.#pool,
      log,
      claims: new RunClaims({
        journal,
        reconciler: this.#reconciler,
        bootId: boot.bootId,
        self: () => this.#fleet.membership,
        authority: () => this.#fleet.current().updates,
        log,
      }),
    });
    this.#sweep = new Sweep({
      journal,
      clock,
      log,
      settle: () => {
        this.#dispatcher.refill();
        this.#settlement.sweep();
      },
    });
    this.#server = createServer({
      name: 'hypha-supervisor',
      version: manifest.version,
      log,
      findKey: (keyid) => this.#fleet.current().findKey(keyid)?.publicKey,
      checkReady: async () => {
        this.#fleet.current();
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
    const { config, log, folder } = this.#parts;
    log.info('supervisor stops');
    await this.#server.close();
    this.#sweep.stop();
    await this.#pool.stop();
    await Promise.all([this.#settlement.stop(), this.#reconciler.stop()]);
    if (config.onStop === 'stop') await this.#reconciler.halt();
    await this.#fleet.stop();
    await this.#gate.close();
    await this.#dispatcher.idle();
    await this.#queue.close();
    await this.#journal.close();
    await removeFenceGroup(this.#cgroup2, folder.fenceGroup).catch((err: unknown) =>
      log.debug({ err }, 'fence group stays'),
    );
  }

  async #start(): Promise<void> {
    const { config } = this.#parts;
    const admission = this.#openAdmission();
    this.#journal.subscribe((entry, events) => {
      const isNew = events.some(({ body }) => body.type === 'accepted');
      if (isNew || isTerminal(entry.state)) this.#dispatcher.kick();
      this.#fleet.kick();
    });
    this.#fleet.start(admission);
    await this.#pool.recover();
    await this.#recoverRuns();
    await this.#reconciler.start();
    this.#settlement.start();
    await this.#gate.open();
    this.#url = await this.#server.listen({ host: config.host, port: config.port });
    this.#sweep.start();
    await this.#pool.start(config.runners);
  }

  #openAdmission(): NodeAdmission {
    const { keys, host, verifier, clock } = this.#parts;
    const journal = this.#journal;
    const admission = new NodeAdmission({
      journal,
      authority: this.#fleet,
      verifier,
      clock,
      membership: () => this.#fleet.membership,
      capacity: () => this.#capacity(),
      authorityAgeMs: LIMITS.authorityAgeMs,
    });
    addRunRoutes(this.#server, { journal, node: keys.nodeId });
    addNodeRoutes(this.#server, {
      node: keys.nodeId,
      admission,
      resources: new ResourceReader({ journal, sals: host.sals, reconciler: this.#reconciler }),
      facts: () => this.#facts(),
    });
    return admission;
  }

  /** Runs whose runner is not expected back get a new epoch; after a reboot their world is made again first. */
  async #recoverRuns(): Promise<void> {
    const { boot, log } = this.#parts;
    const unfinished = this.#journal.listLanes().flatMap(({ runs }) => runs);
    for (const entry of unfinished.filter(isClaimable)) {
      const { run, holder, bootId } = entry;
      const isExpected = holder !== null && this.#pool.ids.has(holder);
      if (holder !== null && !isExpected) await this.#journal.takeOver(run);
      if (bootId === null || bootId === boot.bootId) continue;
      log.info({ run }, 'resources of the run are restored after a reboot');
      this.#dispatcher.hold(run);
      void this.#reconciler.restore(entry).finally(() => this.#dispatcher.letGo(run));
    }
  }

  /** Everything the runner started is dead. Its runs get their next epoch and a new job at once. */
  async #takeOverFrom(runner: string): Promise<void> {
    const owned = ({ holder }: RunEntry) => holder === runner;
    const runs = this.#journal.listLanes().flatMap((lane) => lane.runs.filter(owned));
    for (const entry of runs.filter(isClaimable)) {
      const { run, epoch } = await this.#journal.takeOver(entry.run);
      this.#parts.log.warn({ run, epoch, runner }, 'run taken over from a dead runner');
    }
    this.#dispatcher.kick();
  }

  #runnerCommand() {
    const { config, folder, keys, host, runner } = this.#parts;
    return {
      ...runner,
      idVariable: 'HYPHA_RUNNER_RUNNER',
      tokenVariable: 'HYPHA_RUNNER_TOKEN',
      env: {
        ...COMMAND_ENV,
        HYPHA_RUNNER_JOURNAL_SOCKET: folder.socket,
        HYPHA_RUNNER_REDIS: config.redis,
        HYPHA_RUNNER_QUEUE_NAME: QUEUE_NAME,
        HYPHA_RUNNER_QUEUE_PREFIX: queuePrefix(keys.nodeId),
        HYPHA_RUNNER_NODE: keys.nodeId,
        HYPHA_RUNNER_SALS: JSON.stringify(host.runnerConfig),
        HYPHA_RUNNER_LOG_LEVEL: config.logLevel,
      },
    };
  }

  /** What a machine is does not change under a process. */
  #facts(): Promise<NodeFacts> {
    const { sals, storageBytes } = this.#parts.host;
    const statuses = sals.list.map(({ kind, status }) => [kind, { ...status }] as const);
    this.#machine ??= readFacts({ storageBytes, sals: Object.fromEntries(statuses) });
    return this.#machine;
  }

  async #capacity(): Promise<ResourceLimits> {
    const { cpus, memoryBytes, storageBytes } = await this.#facts();
    return { milliCpus: cpus * 1000, memoryBytes, storageBytes };
  }

  async #sample() {
    const capacity = await this.#capacity();
    const reserved = this.#journal.reserved();
    const left = (component: keyof ResourceLimits) =>
      Math.max(0, capacity[component] - reserved[component]);
    return {
      facts: await this.#facts(),
      reserved,
      free: {
        milliCpus: left('milliCpus'),
        memoryBytes: left('memoryBytes'),
        storageBytes: left('storageBytes'),
      },
      runsActive: this.#journal.listLanes().reduce((sum, { runs }) => sum + runs.length, 0),
      authoritySeq: this.#fleet.authoritySeq,
    };
  }
}

/** By the spec of the resource's own `ensure`; null when that cannot be read. */
function useOf(sals: Sals, { kind, spec }: DesiredResource): ResourceLimits | null {
  const verb = sals.findVerb(`${kind}.ensure`);
  if (verb?.spec === undefined) return null;
  try {
    return verb.spec(verb.parse(spec)).uses;
  } catch {
    return null;
  }
}
