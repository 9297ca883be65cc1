/**
 * A node without its supervisor's HTTP side: a real journal behind the real socket protocol, a real
 * Redis, runner processes in fences of their own. Tests only.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Journal, openJournal } from '@hypha/journal';
import { LineChannel, NumberedRequest, type SupervisorNotice } from '@hypha/journal/client';
import {
  type Authority,
  envelopeDigest,
  HyphaError,
  isHyphaError,
  isTerminal,
  type JournalBody,
  nodeIdOf,
  type RunState,
  runIdOf,
  type ScriptDraft,
  signScript,
  toProblem,
} from '@hypha/protocol';
import { generateKey, nodeVerifier } from '@hypha/protocol/node';
import { detectCgroups, type Fence, openFence, removeFenceGroup } from '@hypha/sal';
import { createFleet, scriptPayloadOf, signUpdate } from '@hypha/testkit';
import { Queue } from 'bullmq';
import { Redis } from 'ioredis';
import { vi } from 'vitest';
import { CountedVolumes } from './counted-volumes.ts';
import { RedisFixture } from './redis-fixture.ts';

const COUNTING_RUNNER = fileURLToPath(new URL('./counting-runner.ts', import.meta.url));
const MAIN = fileURLToPath(new URL('../main.ts', import.meta.url));
const TOKEN = randomBytes(16).toString('hex');
const MIB = 1024 * 1024;
const WAIT = { timeout: 10_000, interval: 10 };
const RUN_WAIT = { timeout: 40_000, interval: 20 };

export interface RunnerProcess {
  readonly name: string;
  readonly child: ChildProcess;
  readonly fence: Fence;
  /** What it logged, parsed. */
  readonly lines: Record<string, unknown>[];
  /** Exit code, or the signal that ended it. */
  readonly exited: Promise<number | string>;
}

export class NodeRig implements AsyncDisposable {
  readonly node: string;
  readonly #fleet = createFleet();
  authority: Authority = this.#fleet.authority;
  readonly volumes: CountedVolumes;
  readonly redis: RedisFixture;
  readonly runners: RunnerProcess[] = [];
  /** Sees each append before it is stored; true: store it, but never answer. What it throws is the answer. */
  onAppend: (run: string, bodies: readonly JournalBody[]) => boolean = () => false;
  /** It serves. */
  realms: readonly string[] = ['*'];
  /** Answers the next claim, after it was granted or instead of that. */
  refuseClaim: { after: boolean; error: HyphaError } | undefined;
  /** Runs whose cancel was accepted before they were claimed. */
  readonly cancelled = new Set<string>();
  // run → when it wants to be woken, epoch milliseconds
  readonly parked = new Map<string, number>();
  beats = 0;
  readonly #folder: string;
  readonly #group: string;
  readonly #cgroup2: string | undefined;
  readonly #journal: Journal;
  readonly #client: Redis;
  readonly #queue: Queue;
  readonly #channels = new Map<LineChannel, { runner: string; run: string | undefined }>();
  readonly #sockets = new Set<Socket>();
  #server: Server | undefined;
  #generation = 0;

  private constructor(deps: {
    folder: string;
    cgroup2: string | undefined;
    journal: Journal;
    redis: RedisFixture;
    node: string;
  }) {
    this.#folder = deps.folder;
    this.#group = `hypha-test-${randomBytes(4).toString('hex')}`;
    this.#cgroup2 = deps.cgroup2;
    this.#journal = deps.journal;
    this.redis = deps.redis;
    this.node = deps.node;
    this.volumes = new CountedVolumes(join(deps.folder, 'world'));
    this.#client = new Redis(deps.redis.socket, {
      maxRetriesPerRequest: null,
      retryStrategy: () => 50,
    });
    this.#client.on('error', () => undefined);
    this.#queue = new Queue('runs', { connection: this.#client, prefix: '{test}' });
    this.#queue.on('error', () => undefined);
  }

  static async open(): Promise<NodeRig> {
    const folder = await mkdtemp(join(tmpdir(), 'hypha-runner-'));
    const redis = new RedisFixture(folder);
    await redis.start();
    const { signer } = generateKey();
    const node = nodeIdOf(nodeVerifier, signer.publicKey);
    const journal = await openJournal({
      file: join(folder, 'journal.db'),
      node,
      signer,
      verifier: nodeVerifier,
      nowMs: () => Date.now(),
      authoritySeq: () => 1,
      useOf: () => null,
    });
    const { cgroup2 } = await detectCgroups();
    const rig = new NodeRig({ folder, cgroup2, journal, redis, node });
    await rig.listen();
    return rig;
  }

  get #socketPath(): string {
    return join(this.#folder, 'journal.sock');
  }

  async listen(): Promise<void> {
    const server = createServer((socket) => this.#serve(socket));
    server.listen(this.#socketPath);
    await once(server, 'listening');
    this.#server = server;
  }

  /** The supervisor is gone; its journal stays. */
  async hangUp(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    if (server === undefined) return;
    const closed = once(server, 'close');
    server.close();
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  /** The runner as it is shipped, on simulated SALs. */
  async startMain(): Promise<RunnerProcess> {
    const folder = join(this.#folder, 'simulated');
    await mkdir(folder);
    const choice = { volume: false, container: false };
    const sals = { mode: 'simulated', folder, choice, group: 'hypha-00000000' };
    return await this.#start(MAIN, { HYPHA_RUNNER_SALS: JSON.stringify(sals) });
  }

  async startRunner(env: Readonly<Record<string, string>> = {}): Promise<RunnerProcess> {
    const sals = { folder: join(this.#folder, 'world') };
    return await this.#start(COUNTING_RUNNER, { HYPHA_RUNNER_SALS: JSON.stringify(sals), ...env });
  }

  async #start(main: string, env: Readonly<Record<string, string>>): Promise<RunnerProcess> {
    const name = `runner-${this.runners.length + 1}`;
    const fence = await openFence({ cgroup2: this.#cgroup2, group: this.#group, name });
    const { tool, argv } = fence.enter(process.execPath, [main]);
    const child = spawn(tool, argv, {
      detached: true,
      stdio: ['ignore', 'ignore', 'pipe'],
      env: {
        HYPHA_RUNNER_RUNNER: name,
        HYPHA_RUNNER_TOKEN: TOKEN,
        HYPHA_RUNNER_JOURNAL_SOCKET: this.#socketPath,
        HYPHA_RUNNER_REDIS: this.redis.socket,
        HYPHA_RUNNER_QUEUE_PREFIX: '{test}',
        HYPHA_RUNNER_NODE: this.node,
        HYPHA_RUNNER_RECONNECT_MS: '2000',
        ...env,
      },
    });
    if (child.pid !== undefined) fence.adopt(child.pid);
    const lines: Record<string, unknown>[] = [];
    let rest = '';
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      const parts = `${rest}${text}`.split('\n');
      rest = parts.pop() ?? '';
      for (const part of parts) lines.push(parseLine(part));
    });
    const exited = once(child, 'exit').then(([code, signal]) => code ?? signal);
    const runner = { name, child, fence, lines, exited };
    this.runners.push(runner);
    return runner;
  }

  /** What the supervisor does about a dead runner: everything it started dies before its run moves on. */
  async fenceOff(runner: RunnerProcess): Promise<void> {
    await runner.fence.kill();
    await runner.fence.waitEmpty(AbortSignal.timeout(10_000));
  }

  /** Admits a signed script and puts its first job in the queue. */
  async submit(source: string, draft: Partial<ScriptDraft> = {}): Promise<string> {
    this.#generation += 1;
    const payload = scriptPayloadOf(this, {
      draft: {
        ...{ generation: this.#generation, nodes: [this.node], source, caps: ['volume'] },
        ...draft,
      },
    });
    const { operator } = this.#fleet;
    const envelope = signScript(payload, [operator]);
    const digest = envelopeDigest(nodeVerifier, envelope, 'script');
    const run = runIdOf(nodeVerifier, digest, this.node);
    await this.#journal.admit({
      run,
      digest,
      envelope,
      payload,
      keyids: [operator.keyid],
      authoritySeq: this.authority.seq,
      source: 'http',
      capacity: { milliCpus: 8000, memoryBytes: 8192 * MIB, storageBytes: 1024 * 1024 * MIB },
    });
    await this.addJob({ run, epoch: (await this.#journal.runs.getRun(run)).epoch });
    return run;
  }

  /** Once a former job of this name has left the queue, which would ignore the second one. */
  async addJob(data: { run: string; epoch: number }): Promise<void> {
    const jobId = `${data.run}-${data.epoch}`;
    await vi.waitFor(async () => {
      if ((await this.#queue.getJob(jobId)) !== undefined) throw new Error(`${jobId} is queued`);
    }, WAIT);
    await this.#queue.add('run', data, { jobId, attempts: 1 });
  }

  /** The next epoch for whoever comes. */
  async handOn(run: string): Promise<void> {
    const { epoch } = await this.#journal.takeOver(run);
    await this.addJob({ run, epoch });
  }

  /** Nothing is held any more, and a new runner has these runs, whose own one is gone. */
  async takeOver(...runs: readonly string[]): Promise<void> {
    await this.volumes.letGoAll();
    for (const run of runs) await this.handOn(run);
    await this.startRunner();
  }

  /** Until an apply on this volume is half done. Answers the pid of its tool, which runs. */
  async untilHeld(name: string): Promise<number> {
    return await vi.waitFor(() => {
      const pid = this.volumes.heldBy(name);
      if (pid === undefined) throw new Error(`nothing holds ${name}`);
      return pid;
    }, RUN_WAIT);
  }

  /** Until the runner's part of the run ends. Answers its state then. */
  async untilOver(run: string): Promise<RunState> {
    return await vi.waitFor(async () => {
      const state = await this.stateOf(run);
      if (state !== 'committed' && !isTerminal(state)) throw new Error(`${run} is ${state}`);
      return state;
    }, RUN_WAIT);
  }

  /** Puts a parked run into the queue again, once its time has come. */
  async wake(run: string): Promise<void> {
    await vi.waitFor(() => {
      if (Date.now() < (this.parked.get(run) ?? Infinity)) throw new Error(`${run} waits`);
    }, WAIT);
    this.parked.delete(run);
    await this.addJob({ run, epoch: await this.epochOf(run) });
  }

  async holderOf(run: string): Promise<string | null> {
    return (await this.#journal.runs.getRun(run)).holder;
  }

  async bodies(run: string): Promise<JournalBody[]> {
    return (await this.#journal.runs.readAllEvents(run)).map(({ body }) => body);
  }

  async epochOf(run: string): Promise<number> {
    return (await this.#journal.runs.getRun(run)).epoch;
  }

  async stateOf(run: string): Promise<RunState> {
    return (await this.#journal.runs.getRun(run)).state;
  }

  notify(notice: SupervisorNotice): void {
    for (const channel of this.#channels.keys()) channel.send(notice);
  }

  revokeOperator(): void {
    const { operator, roots } = this.#fleet;
    const change = { type: 'revoke', keyid: operator.keyid, reason: 'lost' } as const;
    this.authority = this.authority.apply(signUpdate(this.authority, change, roots));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const runner of this.runners) {
      await this.fenceOff(runner);
      await runner.exited;
      await runner.fence.remove();
    }
    await removeFenceGroup(this.#cgroup2, this.#group);
    await this.hangUp();
    // Closing the queue would wait for a Redis that may be gone.
    this.#client.disconnect();
    await this.redis.stop();
    await this.#journal.close();
    await rm(this.#folder, { recursive: true });
  }

  #serve(socket: Socket): void {
    this.#sockets.add(socket);
    const holder: { runner: string; run: string | undefined } = { runner: '', run: undefined };
    const channel = new LineChannel(socket, {
      onValue: (value) => void this.#answer(channel, holder, value),
      onClose: () => {
        this.#sockets.delete(socket);
        this.#channels.delete(channel);
      },
    });
    this.#channels.set(channel, holder);
  }

  async #answer(
    channel: LineChannel,
    holder: { runner: string; run: string | undefined },
    value: unknown,
  ): Promise<void> {
    const { id, request } = NumberedRequest.parse(value);
    try {
      const answer = await this.#perform(holder, request);
      if (answer !== 'silence') channel.send({ id, ok: true, value: answer });
    } catch (error) {
      if (!isHyphaError(error)) throw error;
      channel.send({ id, ok: false, problem: toProblem(error) });
    }
  }

  async #perform(
    holder: { runner: string; run: string | undefined },
    request: NumberedRequestBody,
  ): Promise<unknown> {
    const bootId = 'boot-1';
    if (request.method === 'hello') {
      if (request.token !== TOKEN) throw new HyphaError('E_UNAUTHENTICATED', 'unknown runner');
      holder.runner = request.runner;
      for (const { run, epoch } of request.holding) {
        await this.#journal.reattach(run, { runner: holder.runner, epoch, bootId });
      }
      return {};
    }
    if (request.method === 'beat') {
      this.beats += 1;
      return {};
    }
    const { run, epoch } = request;
    const { runner } = holder;
    if (request.method === 'claim') {
      const refusal = this.refuseClaim;
      this.refuseClaim = undefined;
      if (refusal?.after === false) throw refusal.error;
      await this.#journal.claim(run, { runner, epoch, bootId });
      if (refusal !== undefined) throw refusal.error;
      return {
        run,
        epoch,
        envelope: await this.#journal.runs.readEnvelope(run),
        authority: this.authority.updates,
        node: { id: this.node, name: 'node-1', labels: {}, realms: [...this.realms] },
        bootId,
        events: await this.#journal.runs.readAllEvents(run),
        committed: [],
        secrets: await this.#journal.secrets.readGiven(run),
        isCancelled: this.cancelled.has(run),
        expectedPlan: null,
      };
    }
    if (request.method === 'read-kept') {
      return { events: await this.#journal.runs.readAllEvents(request.target) };
    }
    if (request.method === 'park') {
      const { after, wakeAtMs } = request;
      await this.#journal.park(run, { by: 'runner', runner, epoch, after }, wakeAtMs);
      this.parked.set(run, wakeAtMs);
      return {};
    }
    if (request.method === 'secrets') {
      throw new HyphaError('E_SECRET', 'this supervisor keeps no secrets');
    }
    const { after, bodies } = request;
    const isSilent = this.onAppend(run, bodies);
    const author = { by: 'runner', runner, epoch, after } as const;
    const events = await this.#journal.append(run, author, bodies);
    return isSilent ? 'silence' : { seq: events.at(-1)?.seq };
  }
}

type NumberedRequestBody = ReturnType<typeof NumberedRequest.parse>['request'];

function parseLine(text: string): Record<string, unknown> {
  try {
    return JSON.parse(text);
  } catch {
    return { msg: text };
  }
}
