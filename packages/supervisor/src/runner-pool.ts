import { randomBytes, timingSafeEqual } from 'node:crypto';
import type { SupervisorNotice } from '@hypha/journal/client';
import { HyphaError } from '@hypha/protocol';
import { type Fence, listFences, openFence } from '@hypha/sal';
import type { Logger } from '@hypha/service';
import type { Clock } from './clock.ts';
import { ListeningClock } from './listening-clock.ts';
import { type RunnerCommand, spawnRunner } from './runner-process.ts';
import { type RunnerRecord, type RunnerRecords, readPidStart } from './runner-record.ts';
import { backoffMs, LIMITS } from './supervisor-limits.ts';

const FENCE_PREFIX = 'runner-';

/** A connection of a runner, as the pool needs it. */
export interface RunnerLine {
  /** Ends the connection; its end is reported as that of any other. */
  close(): void;
  notify(notice: SupervisorNotice): void;
}

interface Runner {
  readonly id: string;
  readonly token: string;
  readonly fence: Fence;
  readonly startedMs: number;
  line: RunnerLine | undefined;
  isDying: boolean;
  /** Listening time at which something was heard of it last, its start included. */
  heardMs: number;
  /** How long it may stay away before it says hello. */
  helloMs: number;
}

interface RunnerPoolDeps {
  readonly records: RunnerRecords;
  readonly command: RunnerCommand;
  readonly bootId: string;
  /** Mount of the cgroup v2 hierarchy; undefined when there is none. */
  readonly cgroup2: string | undefined;
  /** The cgroup folder of this state directory. */
  readonly group: string;
  readonly log: Logger;
  readonly clock: Clock;
  /** Runs are held by this runner. */
  readonly isHolding: (runner: string) => boolean;
  /** Everything the runner started is dead: what it owned may go to another. */
  readonly onDead: (runner: string) => Promise<void>;
}

/**
 * The runner processes of this node, each in a fence of its own (design §7). A runner whose connection ended is
 * dead to us: its fence is killed and seen empty before anything it owned is given away, and only then is
 * a new one started in its place. So is one that holds runs and says nothing: it may be stopped, and would go
 * on in the middle of a step whenever somebody lets it.
 */
export class RunnerPool {
  readonly #deps: RunnerPoolDeps;
  readonly #runners = new Map<string, Runner>();
  readonly #stopping = new AbortController();
  readonly #burials = new Set<Promise<void>>();
  /** How many there are to be. */
  #count = 0;
  /** Starts in a row that did not last. */
  #shortLives = 0;
  readonly #listening: ListeningClock;
  #watch: NodeJS.Timeout | undefined;
  #isSweeping = false;
  #fenced = 0;

  constructor(deps: RunnerPoolDeps) {
    this.#deps = deps;
    this.#listening = new ListeningClock(deps.clock.monotonicMs(), LIMITS.listenMs);
  }

  /** Runners that were killed for their silence, since this process began. */
  get fenced(): number {
    return this.#fenced;
  }

  get connected(): number {
    return [...this.#runners.values()].filter(({ line }) => line !== undefined).length;
  }

  /** Ids of runners that may own runs: one that is gone stays until what it owned was given away. */
  get ids(): ReadonlySet<string> {
    return new Set(this.#runners.keys());
  }

  /**
   * Takes over from a supervisor that is gone: runners of it that live are expected back, the others and
   * every stray are fenced. Call before any runner can connect.
   */
  async recover(): Promise<void> {
    const { records, bootId, cgroup2, group } = this.#deps;
    const known = await records.list();
    for (const record of known) {
      // No process survives a reboot.
      if (record.bootId === bootId) await this.#expect(record);
      else await records.drop(record.id);
    }
    for (const name of await listFences(cgroup2, group)) {
      const id = name.slice(FENCE_PREFIX.length);
      if (!name.startsWith(FENCE_PREFIX) || this.#runners.has(id)) continue;
      this.#deps.log.warn({ fence: name }, 'stray runner fenced');
      await this.#empty(await openFence({ cgroup2, group, name }));
    }
  }

  /**
   * Call once runners can connect. Those of a former supervisor have from now to come back; as many as are
   * missing are started, and that many are kept.
   */
  async start(count: number): Promise<void> {
    this.#count = count;
    for (const runner of this.#runners.values()) {
      runner.helloMs = LIMITS.reattachMs;
      runner.heardMs = this.#listening.elapsedMs;
    }
    while (this.#runners.size < count) await this.#spawn();
    this.#watch = setInterval(() => this.#fenceSilent(), LIMITS.listenMs);
  }

  /** Starts what is missing because it could not be started when its time was. */
  async sweep(): Promise<void> {
    // A burial starts the next one itself, after the pause that is due.
    const isBusy = this.#isSweeping || this.#burials.size > 0 || this.#watch === undefined;
    if (isBusy || this.#stopping.signal.aborted) return;
    this.#isSweeping = true;
    try {
      while (this.#runners.size < this.#count) await this.#spawn();
    } catch (err) {
      this.#deps.log.error({ err }, 'runner cannot be started');
    } finally {
      this.#isSweeping = false;
    }
  }

  /** A runner says hello. Throws `E_UNAUTHENTICATED` or `E_STALE_EPOCH`: then it ends itself. */
  greet(id: string, token: string, pid: number, line: RunnerLine): void {
    const runner = this.#runners.get(id);
    if (runner === undefined || !isEqual(runner.token, token)) {
      this.#deps.log.error({ runner: id, alarm: true }, 'unknown runner refused');
      throw new HyphaError('E_UNAUTHENTICATED', `${id} was not started by this supervisor`);
    }
    if (runner.isDying || runner.line !== undefined || this.#stopping.signal.aborted) {
      throw new HyphaError('E_STALE_EPOCH', `${id} was replaced`);
    }
    runner.line = line;
    runner.heardMs = this.#listening.elapsedMs;
    runner.fence.adopt(pid);
    this.#deps.log.info({ runner: id }, 'runner connected');
  }

  /** Something came from it. */
  hear(id: string): void {
    const runner = this.#runners.get(id);
    if (runner !== undefined) runner.heardMs = this.#listening.elapsedMs;
  }

  /** Ends runners that own nothing: they take no work, and nobody sees why. Others start in their place. */
  replaceIdle(): void {
    for (const runner of this.#runners.values()) {
      const isIdle = runner.line !== undefined && !this.#deps.isHolding(runner.id);
      if (isIdle) this.#bury(runner, 'took no work');
    }
  }

  /** One that is not connected is not told; it learns it when it asks. */
  notify(id: string, notice: SupervisorNotice): void {
    this.#runners.get(id)?.line?.notify(notice);
  }

  /** The connection ended: whoever is behind it is as good as dead. */
  lose(id: string): void {
    const runner = this.#runners.get(id);
    if (runner !== undefined) this.#bury(runner, 'connection ended');
  }

  /** Lets runners finish their step, then fences them all. Runs stay where their journals are. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    for (const { line } of this.#runners.values()) line?.notify({ notice: 'drain' });
    const over = AbortSignal.timeout(LIMITS.drainMs);
    while (this.connected > 0 && !over.aborted) await this.#deps.clock.sleep(20, over);
    clearInterval(this.#watch);
    for (const runner of this.#runners.values()) this.#bury(runner, 'supervisor stops');
    await Promise.all(this.#burials);
  }

  async #expect({ id, token, pid, pidStart }: RunnerRecord): Promise<void> {
    const fence = await this.#openFence(id);
    const isAlive = pid !== null && pidStart !== null && (await readPidStart(pid)) === pidStart;
    // Without cgroups a pid is all there is, and it may be another's by now.
    if (isAlive) fence.adopt(pid);
    const runner = this.#add(id, token, fence);
    // One that was never written down, or cannot be told here, may still live.
    if (!isAlive && pidStart !== null) this.#bury(runner, 'ended while no supervisor looked');
  }

  async #spawn(): Promise<void> {
    const { records, command, bootId, log } = this.#deps;
    const id = randomBytes(4).toString('hex');
    const token = randomBytes(32).toString('base64url');
    const fence = await this.#openFence(id);
    await records.save({ id, token, bootId, pid: null, pidStart: null });
    const runner = this.#add(id, token, fence);
    const child = spawnRunner(command, fence, { id, token });
    child.once('error', (err) => {
      log.error({ err, runner: id }, 'runner cannot be started');
      this.#bury(runner, 'not started');
    });
    child.once('exit', (code, signal) => this.#bury(runner, `exit ${code ?? signal}`));
    const pid = child.pid ?? null;
    if (pid === null) return;
    log.info({ runner: id, pid }, 'runner started');
    await records.save({ id, token, bootId, pid, pidStart: await readPidStart(pid) });
    // It ended while that was written: then the record is dropped by its burial, or here.
    if (!this.#runners.has(id)) await records.drop(id);
  }

  #add(id: string, token: string, fence: Fence): Runner {
    const runner: Runner = {
      ...{ id, token, fence, line: undefined, isDying: false },
      startedMs: this.#deps.clock.monotonicMs(),
      heardMs: this.#listening.elapsedMs,
      helloMs: LIMITS.helloMs,
    };
    this.#runners.set(id, runner);
    return runner;
  }

  #fenceSilent(): void {
    this.#listening.tick(this.#deps.clock.monotonicMs());
    for (const runner of this.#runners.values()) {
      const silentMs = this.#listening.elapsedMs - runner.heardMs;
      if (runner.isDying) continue;
      if (runner.line === undefined) {
        if (silentMs > runner.helloMs) this.#bury(runner, 'did not say hello');
      } else if (silentMs > LIMITS.silenceMsMax && this.#deps.isHolding(runner.id)) {
        this.#fenced++;
        this.#bury(runner, `silent for ${LIMITS.silenceMsMax} ms with runs in hand`);
      }
    }
  }

  #bury(runner: Runner, reason: string): void {
    if (runner.isDying) return;
    runner.isDying = true;
    const level = this.#stopping.signal.aborted ? 'info' : 'warn';
    this.#deps.log[level]({ runner: runner.id, reason }, 'runner is gone');
    const burial = this.#fenceOff(runner).catch((err: unknown) => {
      this.#deps.log.error({ err, runner: runner.id, alarm: true }, 'runner cannot be fenced');
    });
    this.#burials.add(burial);
    void burial.finally(() => this.#burials.delete(burial));
  }

  async #fenceOff(runner: Runner): Promise<void> {
    const { records, clock } = this.#deps;
    const livedMs = clock.monotonicMs() - runner.startedMs;
    await this.#empty(runner.fence);
    runner.line?.close();
    runner.line = undefined;
    await this.#giveAway(runner);
    await records.drop(runner.id);
    this.#runners.delete(runner.id);
    this.#shortLives = livedMs < LIMITS.respawnSteadyMs ? this.#shortLives + 1 : 0;
    // The first death is an accident and is made good at once.
    if (this.#shortLives > 1) await this.#pause(this.#shortLives - 1);
    if (!this.#stopping.signal.aborted && this.#runners.size < this.#count) await this.#spawn();
  }

  async #giveAway({ id }: Runner): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#deps.onDead(id);
      } catch (err) {
        this.#deps.log.error({ err, runner: id }, 'runs of a dead runner cannot be given away');
        if (this.#stopping.signal.aborted) throw err;
      }
      await this.#pause(attempt);
    }
  }

  async #pause(attempt: number): Promise<void> {
    const { clock } = this.#deps;
    const bounds = { min: LIMITS.respawnMsMin, max: LIMITS.respawnMsMax };
    await clock.sleep(backoffMs(attempt, bounds, clock.jitter()), this.#stopping.signal);
  }

  /** Kills what is inside until nothing is. Nobody may own its runs before; a person has to look. */
  async #empty(fence: Fence): Promise<void> {
    for (;;) {
      await fence.kill();
      try {
        await fence.waitEmpty(AbortSignal.timeout(LIMITS.drainMs));
        break;
      } catch (err) {
        this.#deps.log.error({ err, alarm: true }, 'fence does not become empty');
        if (this.#stopping.signal.aborted) throw err;
      }
    }
    // Nothing is in it: what stays of it is a folder, which the next start finds.
    await fence.remove().catch((err: unknown) => this.#deps.log.warn({ err }, 'fence stays'));
  }

  #openFence(id: string): Promise<Fence> {
    const { cgroup2, group } = this.#deps;
    return openFence({ cgroup2, group, name: `${FENCE_PREFIX}${id}` });
  }
}

function isEqual(left: string, right: string): boolean {
  const [a, b] = [Buffer.from(left), Buffer.from(right)];
  return a.length === b.length && timingSafeEqual(a, b);
}
