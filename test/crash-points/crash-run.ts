import { runSaga, type SagaOutcome } from '@hypha/engine';
import { type Journal, openJournal } from '@hypha/journal';
import {
  buildScriptPayload,
  digestOf,
  fromBase64,
  type JournalEvent,
  Json,
  runIdOf,
  signScript,
  verifyReceipt,
} from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import { NO_SECRETS, type Sals } from '@hypha/sal';
import { SandboxPool } from '@hypha/sandbox';
import { createLogger } from '@hypha/service/process';
import { MemoryDatabase } from '@hypha/store/testing';
import { createFleet, entropyAt } from '@hypha/testkit';
import { openClaim } from '../../packages/runner/src/claimed-run.ts';
import { engineClock } from '../../packages/runner/src/engine-clock.ts';
import { KnownAuthority } from '../../packages/runner/src/known-authority.ts';
import { RunClaims } from '../../packages/supervisor/src/run-claims.ts';
import { SOURCE } from './crash-script.ts';
import { type CrashWorld, REALM, removeAll } from './crash-world.ts';
import { MortalProcess } from './mortal-process.ts';
import { type Committed, isCommitted, isInsideOnce, linesOf } from './recorded-steps.ts';
import { WatchedEffects } from './watched-effects.ts';

const RESOURCES = { milliCpus: 10_000, memoryBytes: 2 ** 30, storageBytes: 2 ** 30 };
/** A run that hangs is a failure, and not for ever. */
const WALL_MS = 180_000;
const silent = createLogger({ name: 'crash-points', level: 'silent' });
const fleet = createFleet();

/** How a run ended: equal for two runs that did the same. */
export interface Ending {
  readonly receipt: Json;
  /** Steps with their outcomes, in the order of the steps. */
  readonly steps: readonly string[];
  /** When the run had committed or was undone, and once it was settled. */
  readonly worlds: readonly Json[];
  /** How often each thing appeared and disappeared. */
  readonly made: Readonly<Record<string, number>>;
  readonly unmade: Readonly<Record<string, number>>;
  /** Lines that `once` execs left: the most that were ever there. */
  readonly once: readonly string[];
}

export interface CrashPoint {
  /** Of the run: nothing else has it. */
  readonly deployment: string;
  /** After so many events its first runner dies. */
  readonly eventsMax: number;
  /** Or after the last, whichever that is. */
  readonly diesAtEnd: boolean;
}

export interface CrashReport {
  readonly ending: Ending;
  /** False when it was over before it could die. */
  readonly hasDied: boolean;
  /** It died inside a `once` exec: nobody can know whether that was run. */
  readonly isUnknown: boolean;
}

/**
 * One run in a process that dies at this point and takes its sandbox hosts along; another, with other hosts, goes on
 * with it. Nothing is left of the deployment.
 */
export async function runDeployment(
  world: CrashWorld,
  options: CrashPoint & { readonly hosts: SandboxPool },
): Promise<CrashReport> {
  const { deployment } = options;
  const run = new CrashRun(world, deployment);
  const report = await run.go(options).finally(() => run.close());
  const left = JSON.stringify(await world.capture(deployment));
  if (left !== '{}') throw new Error(`left of ${deployment}: ${left}`);
  return report;
}

class CrashRun {
  readonly #world: CrashWorld;
  readonly #deployment: string;
  readonly #database = new MemoryDatabase();
  readonly #watched: WatchedEffects;
  #opened: { readonly journal: Journal; readonly claims: RunClaims } | undefined;
  #run = '';

  constructor(world: CrashWorld, deployment: string) {
    this.#world = world;
    this.#deployment = deployment;
    this.#watched = new WatchedEffects(world, deployment);
  }

  async go(options: CrashPoint & { readonly hosts: SandboxPool }): Promise<CrashReport> {
    await this.#admit();
    const first = new MortalProcess(options);
    const own = new SandboxPool();
    try {
      const work = this.#live('runner-1', first, own);
      await Promise.race([first.died, work]);
    } finally {
      await own.close();
    }
    await first.fenced();
    const isUnknown = first.isDead && isInsideOnce(await this.#readEvents());
    if (first.isDead) await this.#takeOver(options.hosts);
    const ending = await this.#settle();
    return { ending, hasDied: first.isDead, isUnknown };
  }

  async close(): Promise<void> {
    try {
      await removeAll(await this.#world.open(this.#watched.unwatched), this.#deployment);
    } finally {
      await this.#opened?.journal.close();
      this.#database.close();
    }
  }

  get #node() {
    if (this.#opened === undefined) throw new Error('nothing was admitted');
    return this.#opened;
  }

  async #admit(): Promise<void> {
    const { node, signer, image } = this.#world;
    const { authority, operator } = fleet;
    const journal = await openJournal({
      ...{ file: ':memory:', node, signer, verifier: nodeVerifier },
      openStore: ({ migrations }) => this.#database.open({ migrations }),
      nowMs: engineClock.nowMs,
      authoritySeq: () => authority.seq,
      useOf: () => ({ milliCpus: 0, memoryBytes: 0, storageBytes: 0 }),
    });
    this.#opened = { journal, claims: this.#openClaims(journal) };
    const draft = {
      ...{ realm: REALM, deployment: this.#deployment, generation: 1, nodes: [node], authority },
      ...{ source: SOURCE, input: { image }, caps: ['volume', 'container'] },
      limits: { wallMs: WALL_MS, resources: RESOURCES },
    };
    const payload = buildScriptPayload(nodeVerifier, draft, entropyAt(engineClock.nowMs()));
    const envelope = signScript(payload, [operator]);
    const digest = digestOf(nodeVerifier, envelope.payloadType, fromBase64(envelope.payload));
    this.#run = runIdOf(nodeVerifier, digest, node);
    await journal.admit({
      ...{ run: this.#run, digest, envelope, payload, keyids: [operator.keyid] },
      ...{ authoritySeq: authority.seq, source: 'http', capacity: RESOURCES },
    });
  }

  #openClaims(journal: Journal): RunClaims {
    const { node } = this.#world;
    return new RunClaims({
      ...{ journal, secrets: NO_SECRETS, bootId: 'boot', log: silent },
      reconciler: { makeWay: async () => undefined, leaveAlone: async () => undefined },
      revocations: { checkMayAppend: () => undefined, reasonOf: () => undefined },
      dispatcher: { wakeAt: () => undefined, kick: () => undefined, isHeld: () => false },
      notify: () => undefined,
      self: () => ({ id: node, name: 'node-1', labels: {}, realms: ['*'] }),
      authority: () => fleet.authority.updates,
    });
  }

  /** One life of a runner: what it claims, it runs. Never resolves when its process dies. */
  async #live(runner: string, process: MortalProcess, hosts: SandboxPool): Promise<SagaOutcome> {
    const { claims, journal } = this.#node;
    const epoch = journal.findUnfinished(this.#run)?.epoch ?? 0;
    const [claim, sals] = await Promise.all([
      claims.claim(runner, { method: 'claim', run: this.#run, epoch }),
      this.#world.open(this.#watched.over(process.effects)),
    ]);
    const authority = new KnownAuthority(nodeVerifier);
    const { grant, refusal } = openClaim(claim, { verifier: nodeVerifier, authority, runner });
    let after = claim.events.length;
    const outcome = await runSaga({
      grant,
      journal: {
        recorded: claim.events,
        append: async (bodies) => {
          const append = { method: 'append' as const, run: this.#run, epoch, bodies: [...bodies] };
          const request = () => claims.append(runner, { ...append, after });
          ({ seq: after } = await process.event(request));
        },
        readKept: async () => Promise.reject(new Error('nothing is kept')),
      },
      sals,
      openGuest: async (request) => process.guest(await process.survive(hosts.openGuest(request))),
      clock: process.clock(engineClock),
      verifier: nodeVerifier,
      cancel: new AbortController().signal,
      drain: new AbortController().signal,
      ...(refusal === undefined ? {} : { refusal }),
    });
    await process.end();
    return outcome;
  }

  async #takeOver(hosts: SandboxPool): Promise<void> {
    const { journal } = this.#node;
    const state = journal.findUnfinished(this.#run)?.state;
    // Committed or ended: what is left is the supervisor's.
    if (state === undefined || state === 'committed') return;
    await journal.takeOver(this.#run);
    const process = new MortalProcess({ eventsMax: Number.POSITIVE_INFINITY, diesAtEnd: false });
    await this.#live('runner-2', process, hosts);
  }

  /** What the supervisor does after the commit, and what then can be seen. */
  async #settle(): Promise<Ending> {
    const { journal } = this.#node;
    const sals = await this.#world.open(this.#watched.unwatched);
    const worlds = [await this.#world.capture(this.#deployment)];
    const committed = (await this.#readEvents()).map(({ body }) => body).find(isCommitted);
    if (committed !== undefined) {
      worlds.push(await this.#converge(sals, committed.desired));
      await journal.append(this.#run, { by: 'supervisor' }, [
        { type: 'finished', state: 'succeeded', problem: null, undone: 0, leftovers: [] },
      ]);
      worlds.push(await this.#world.capture(this.#deployment));
    }
    const receipt = await this.#readReceipt();
    const steps = (await this.#readEvents()).flatMap(linesOf).toSorted();
    return { receipt, steps, worlds, ...(await this.#watched.seen()) };
  }

  /** Drops what was parked, and says whether the node is as declared without any repair. */
  async #converge(sals: Sals, desired: Committed['desired']): Promise<Json> {
    const observed: Record<string, Json> = {};
    for (const resource of desired) {
      const record = { ...resource, realm: REALM, deployment: this.#deployment };
      const signal = AbortSignal.timeout(60_000);
      const kind = sals.findKind(resource.kind);
      const seen = await kind?.observe(record, signal);
      observed[`${resource.kind} ${resource.name}`] = [seen?.state ?? '', seen?.converged ?? false];
      await kind?.settle?.(record, signal);
    }
    return observed;
  }

  async #readReceipt(): Promise<Json> {
    const envelope = await this.#node.journal.runs.findReceipt(this.#run);
    if (envelope === undefined) throw new Error(`${this.#run} has no receipt`);
    const { publicKey } = this.#world.signer;
    const { payload } = verifyReceipt(nodeVerifier, { envelope, publicKey });
    const { run, envelopeDigest, deployment, startedAt, endedAt, ...rest } = payload;
    const { journalHead, prev, seq, ...compared } = rest;
    return Json.parse(compared);
  }

  async #readEvents(): Promise<readonly JournalEvent[]> {
    return await this.#node.journal.runs.readAllEvents(this.#run);
  }
}
