/**
 * A fleet of one node, all of it real: ledger, coordinator, Redis, supervisor and runner processes over real
 * sockets. Only the SALs count instead of acting. Tests only.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { CoordinatorClient, LedgerClient, NodeClient } from '@hypha/client';
import { openNodeKeys } from '@hypha/identity';
import {
  Authority,
  type AuthorityChange,
  base64,
  base64url,
  buildAdmissionPayload,
  buildAuthorityPayload,
  buildCancelPayload,
  buildGenesisPayload,
  buildScriptPayload,
  type Envelope,
  formatJoinToken,
  fromBase64,
  isTerminal,
  type JournalBody,
  type JournalEvent,
  openEnvelope,
  parseStrictJson,
  ReceiptPayload,
  type Role,
  type RunView,
  type ScriptDraft,
  type Signer,
  signAdmission,
  signAuthority,
  signCancel,
  signScript,
} from '@hypha/protocol';
import { generateKey, nodeVerifier, writeKeyFile } from '@hypha/protocol/node';
import { detectCgroups, listFences, openFence, removeFenceGroup } from '@hypha/sal';
import { waitFor } from '@hypha/testkit';
import { Redis } from 'ioredis';
import { afterAll, afterEach } from 'vitest';
import { queuePrefix } from '../run-queue.ts';
import { RunnerRecords } from '../runner-record.ts';
import { openStateFolder } from '../state-folder.ts';
import { CountedSals } from './counted-sals.ts';
import { ServiceProcess } from './service-process.ts';

const LEDGER = new URL('../../../ledger/src/main.ts', import.meta.url);
const COORDINATOR = new URL('../../../coordinator/src/main.ts', import.meta.url);
const REDIS_ACL = new URL('../redis-acl.ts', import.meta.url);
const SUPERVISOR = new URL('./counted-supervisor.ts', import.meta.url);
const DAY_SECONDS = 86_400;
const WAIT_MS_MAX = 25_000;
const LIMITS = { resources: { milliCpus: 100, memoryBytes: 1024, storageBytes: 1000 } };

export class NodeFixture implements AsyncDisposable {
  readonly sals: CountedSals;
  readonly operator = generateKey().signer;
  node = '';
  readonly #root = generateKey().signer;
  readonly #coordinatorKey = generateKey();
  readonly #folder: string;
  #authority: Authority;
  #ledger: ServiceProcess | undefined;
  #coordinator: ServiceProcess | undefined;
  #supervisor: ServiceProcess | undefined;
  #redis: ChildProcess | undefined;
  #joinToken = '';
  #generation = 10;
  #runners = 1;

  private constructor(folder: string) {
    this.#folder = folder;
    this.sals = new CountedSals(join(folder, 'node', 'sals'));
    const genesis = buildGenesisPayload({
      rootKeys: [{ publicKey: this.#root.publicKey, name: 'root' }],
      threshold: 1,
      nowSeconds: nowSeconds(),
    });
    this.#authority = Authority.fromGenesis(nodeVerifier, signAuthority(genesis, [this.#root]));
  }

  static async start(options: { runners?: number } = {}): Promise<NodeFixture> {
    const fixture = new NodeFixture(await mkdtemp(join(tmpdir(), 'hypha-supervisor-')));
    fixture.#runners = options.runners ?? 1;
    try {
      await fixture.#startFleet();
      await fixture.startSupervisor();
      await until('the node is enrolled', async () => fixture.isReady());
    } catch (error) {
      await fixture[Symbol.asyncDispose]();
      throw error;
    }
    return fixture;
  }

  get api(): NodeClient {
    return new NodeClient({ baseUrl: this.supervisor.url, signer: this.operator });
  }
  get supervisor(): ServiceProcess {
    return started(this.#supervisor);
  }
  get ledger(): LedgerClient {
    return new LedgerClient({ baseUrl: started(this.#ledger).url, signer: this.operator });
  }
  get coordinator(): CoordinatorClient {
    return new CoordinatorClient({
      baseUrl: started(this.#coordinator).url,
      signer: this.operator,
    });
  }
  get authority(): Authority {
    return this.#authority;
  }
  /** Keys, membership, authority. */
  get identityFolder(): string {
    return join(this.#folder, 'node', 'identity');
  }
  get redisSocket(): string {
    return join(this.#folder, 'redis.sock');
  }
  get queuePrefix(): string {
    return queuePrefix(this.node);
  }

  async isReady(): Promise<boolean> {
    const answer = await fetch(`${this.supervisor.url}/readyz`).catch(() => undefined);
    return answer?.status === 200;
  }

  async startSupervisor(): Promise<void> {
    const port = this.#supervisor?.port ?? 0;
    this.#supervisor = await ServiceProcess.start(SUPERVISOR, {
      state: join(this.#folder, 'node'),
      redis: this.redisSocket,
      'redis-users': join(this.#folder, 'node', 'redis-users.json'),
      'join-token': this.#joinToken,
      runners: this.#runners,
      port,
    });
  }
  async startLedger(): Promise<void> {
    this.#ledger = await ServiceProcess.start(LEDGER, {
      state: join(this.#folder, 'ledger'),
      genesis: join(this.#folder, 'genesis.json'),
      port: this.#ledger?.port ?? 0,
    });
  }
  async startCoordinator(): Promise<void> {
    this.#coordinator = await ServiceProcess.start(COORDINATOR, {
      state: join(this.#folder, 'coordinator'),
      ledger: started(this.#ledger).url,
      genesis: this.#authority.genesisHash,
      key: join(this.#folder, 'coordinator.pem'),
      port: this.#coordinator?.port ?? 0,
      'ledger-poll-ms': 200,
    });
  }
  async stopFleet(): Promise<void> {
    await Promise.all([this.#ledger?.kill('SIGKILL'), this.#coordinator?.kill('SIGKILL')]);
  }

  /** Supervisor and runners have their users; the default one, who may do anything, is for tests. */
  async startRedis(): Promise<void> {
    await this.#writeRedisAcl();
    const flags = ['--port', '0', '--unixsocket', this.redisSocket, '--dir', this.#folder];
    flags.push('--aclfile', join(this.#folder, 'redis.acl'));
    this.#redis = spawn('/usr/bin/redis-server', [...flags, '--save', '', '--appendonly', 'no'], {
      stdio: 'ignore',
    });
    await until(
      'Redis answers',
      async () => (await this.redis((redis) => redis.ping())) === 'PONG',
    );
  }
  async #writeRedisAcl(): Promise<void> {
    const aclFile = join(this.#folder, 'redis.acl');
    const states = JSON.stringify([join(this.#folder, 'node')]);
    const argv = [fileURLToPath(REDIS_ACL), '--states', states, '--acl-file', aclFile];
    await promisify(execFile)(process.execPath, [...argv, '--log-level', 'silent']);
    const acl = await readFile(aclFile, 'utf8');
    await writeFile(
      aclFile,
      acl.replace(/^user default .*$/m, 'user default on nopass ~* &* +@all'),
    );
  }
  async stopRedis(): Promise<void> {
    const child = this.#redis;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const exited = once(child, 'exit');
    child.kill('SIGKILL');
    await exited;
  }
  async redis<T>(work: (redis: Redis) => Promise<T>): Promise<T | undefined> {
    const redis = new Redis(this.redisSocket, { retryStrategy: () => null, lazyConnect: true });
    redis.on('error', () => undefined);
    try {
      await redis.connect();
      return await work(redis);
    } catch {
      return undefined;
    } finally {
      redis.disconnect();
    }
  }

  async change(change: AuthorityChange): Promise<Envelope> {
    const payload = buildAuthorityPayload(this.#authority, change, nowSeconds());
    const envelope = signAuthority(payload, [this.#root]);
    await this.ledger.appendAuthority(envelope);
    this.#authority = this.#authority.apply(envelope);
    return envelope;
  }

  /** Another operator, whose key can be taken away without losing sight of the node. */
  async addOperator(caps: readonly string[] = ['*']): Promise<Signer> {
    const { signer } = generateKey();
    await this.change(grantOf('operator', signer.publicKey, caps));
    return signer;
  }

  /** While the supervisor does not run: as after a new disk. Keys and membership stay. */
  async loseJournal(): Promise<void> {
    const { journal } = await openStateFolder(join(this.#folder, 'node'));
    for (const suffix of ['', '-wal', '-shm']) await rm(`${journal}${suffix}`, { force: true });
  }

  /** While the supervisor does not run: its journal began this much earlier. */
  async backdateJournal(seconds: number): Promise<void> {
    const { journal } = await openStateFolder(join(this.#folder, 'node'));
    using db = new DatabaseSync(journal);
    db.prepare('update meta set createdAt = createdAt - ?').run(seconds * 1000);
  }

  /** `body` is what the deploy function does; generations grow by themselves. */
  sign(body: string, draft: Partial<ScriptDraft> = {}, signer: Signer = this.operator): Envelope {
    const source = `import { container, volume, log, now, sleep, undo, waitFor } from 'hypha';\nexport default async function deploy(input) {\n${body}\n}`;
    const payload = buildScriptPayload(
      nodeVerifier,
      {
        deployment: 'web',
        generation: ++this.#generation,
        nodes: [this.node],
        authority: { seq: this.#authority.seq, head: this.#authority.head },
        caps: ['container', 'volume'],
        limits: LIMITS,
        ...(draft.mode === 'destroy' ? {} : { source }),
        ...draft,
      },
      { nowMs: Date.now(), randomBytes: (count) => new Uint8Array(randomBytes(count)) },
    );
    return signScript(payload, [signer]);
  }

  /** Ends the runs of a script envelope on this node. */
  signCancel(
    script: Envelope,
    signer: Signer = this.operator,
    draft: { readonly lifetimeSeconds?: number } = {},
  ): Envelope {
    const payload = buildCancelPayload(
      {
        realm: 'default',
        nodes: [this.node],
        target: openEnvelope(nodeVerifier, script, 'script').digest,
        ...draft,
        authority: { seq: this.#authority.seq, head: this.#authority.head },
      },
      { nowMs: Date.now(), randomBytes: (count) => new Uint8Array(randomBytes(count)) },
    );
    return signCancel(payload, [signer]);
  }

  /** Submits at the node. Returns the run. */
  async submit(envelope: Envelope): Promise<string> {
    const { runs } = await this.api.submit({ envelope });
    return runs[0]?.run ?? '';
  }

  /** Of a runner that lives. */
  async runnerPid(runner: string): Promise<number> {
    const { runners } = await openStateFolder(join(this.#folder, 'node'));
    const record = (await new RunnerRecords(runners).list()).find(({ id }) => id === runner);
    const pid = record?.pid ?? undefined;
    if (pid === undefined || !isAlive(pid)) throw new Error(`runner ${runner} does not run`);
    return pid;
  }

  async eventsOf(run: string): Promise<readonly JournalEvent[]> {
    return (await this.api.journal(run, { limit: 500 })).items;
  }

  async bodiesOf(run: string): Promise<readonly JournalBody[]> {
    return (await this.eventsOf(run)).map(({ body }) => body);
  }

  async receiptOf(run: string): Promise<ReceiptPayload> {
    const { payload } = await this.api.receipt(run);
    return ReceiptPayload.parse(parseStrictJson(fromBase64(payload)));
  }

  /** Who started it last. */
  async runnerOf(run: string): Promise<string> {
    const started = (await this.bodiesOf(run)).findLast((body) => body.type === 'started');
    return started?.runner ?? '';
  }

  /** Until an apply or a repair of it stopped half way. Answers the pid of its tool. */
  async untilHeld(name: string): Promise<number> {
    await until(`${name} is half way`, () => this.sals.heldBy(name) !== undefined);
    return this.sals.heldBy(name) ?? 0;
  }

  async waitForEnd(run: string): Promise<RunView> {
    let view: RunView | undefined;
    await until(`${run} ends`, async () => {
      view = await this.api.run(run).catch(() => undefined);
      return view !== undefined && isTerminal(view.state);
    });
    if (view === undefined) throw new Error(`${run} did not end`);
    return view;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#supervisor?.kill('SIGKILL');
    await this.stopFleet();
    await this.stopRedis();
    const { fenceGroup } = await openStateFolder(join(this.#folder, 'node'));
    const { cgroup2 } = await detectCgroups();
    for (const name of await listFences(cgroup2, fenceGroup)) {
      const fence = await openFence({ cgroup2, group: fenceGroup, name });
      await fence.kill();
      await fence.waitEmpty(AbortSignal.timeout(10_000));
      await fence.remove();
    }
    await removeFenceGroup(cgroup2, fenceGroup);
    await rm(this.#folder, { recursive: true, force: true });
  }

  async #startFleet(): Promise<void> {
    await mkdir(join(this.#folder, 'node'), { mode: 0o700 });
    const [genesis] = this.#authority.updates;
    await writeFile(join(this.#folder, 'genesis.json'), JSON.stringify(genesis));
    await Promise.all([this.startLedger(), this.startRedis()]);
    const { publicKey } = await this.ledger.logKey();
    await this.change({ type: 'set-ledger-key', publicKey });
    const admin = generateKey().signer;
    await this.change(grantOf('admin', admin.publicKey));
    await this.change(grantOf('operator', this.operator.publicKey));
    const { pem, signer: coordinator } = this.#coordinatorKey;
    writeKeyFile(join(this.#folder, 'coordinator.pem'), pem);
    await this.change(grantOf('coordinator', coordinator.publicKey));
    await this.startCoordinator();
    const { payload, token } = buildAdmissionPayload(
      nodeVerifier,
      { name: 'node-1', realms: ['*'], lifetimeSeconds: 600 },
      { nowMs: Date.now(), randomBytes: (count) => new Uint8Array(randomBytes(count)) },
    );
    const admission = signAdmission(payload, admin);
    await this.ledger.appendEntry(admission);
    this.#joinToken = formatJoinToken({
      secret: base64url(token),
      genesis: this.#authority.genesisHash,
      ledger: started(this.#ledger).url,
      coordinator: started(this.#coordinator).url,
      admission,
    });
    const { identity } = await openStateFolder(join(this.#folder, 'node'));
    this.node = (await openNodeKeys(identity, Date.now)).nodeId;
  }
}

function grantOf(
  role: Role,
  publicKey: Uint8Array,
  caps: readonly string[] = ['*'],
): AuthorityChange {
  return {
    type: 'grant',
    grant: {
      ...{ name: role, role, realms: ['*'], caps: [...caps], nodes: ['*'], limits: null },
      publicKey: base64(publicKey),
      notBefore: nowSeconds() - 60,
      notAfter: nowSeconds() + DAY_SECONDS,
    },
  };
}

/** One node for all tests of the file that asks; what a test holds is let go after it. */
export async function nodeOfAllTests(options: { runners?: number } = {}): Promise<NodeFixture> {
  const fixture = await NodeFixture.start(options);
  afterAll(() => fixture[Symbol.asyncDispose]());
  afterEach(() => fixture.sals.letGoAll());
  return fixture;
}

/** Waits for a condition; throws, naming it, when it does not come. */
export async function until(what: string, isTrue: () => Promise<boolean> | boolean): Promise<void> {
  await waitFor(isTrue, { timeoutMs: WAIT_MS_MAX, what });
}

export function isAlive(pid: number | undefined): boolean {
  if (pid === undefined) return false;
  return existsSync(`/proc/${pid}`);
}

function started(process: ServiceProcess | undefined): ServiceProcess {
  if (process === undefined) throw new Error('the process was not started');
  return process;
}

const nowSeconds = () => Math.floor(Date.now() / 1000);
