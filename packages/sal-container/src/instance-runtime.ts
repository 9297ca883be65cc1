/**
 * Starting and stopping one instance: bundle, monitor, runtime. Whatever a killed predecessor left is
 * either taken over (a container that runs under its monitor) or cleared away, never doubled.
 */
import { mkdir, readlink, rm, stat } from 'node:fs/promises';
import { constants } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { HyphaError } from '@hypha/protocol';
import {
  type Allowance,
  type ContainerSpec,
  commandFailure,
  findRecord,
  writeRecord,
} from '@hypha/sal';
import { z } from 'zod';
import { removeRunFolder, writeBundle } from './bundle.ts';
import { removeCgroups } from './cgroup-folders.ts';
import {
  type ContainerHost,
  type Instance,
  instanceRunFolder,
  runtimeRoot,
} from './container-host.ts';
import { CONTAINER_LIMITS } from './container-limits.ts';
import { trimLog } from './container-log.ts';
import type { InstanceStore } from './instance-store.ts';
import { readKernelFile } from './kernel-file.ts';
import {
  createMonitored,
  findMonitor,
  findMonitorFence,
  hasReported,
  killMonitor,
} from './monitor.ts';
import { identifyProcess, isAlive, ProcessIdentity } from './process-identity.ts';
import { updateArguments } from './runtime-config.ts';

/** `unmonitored`: it runs, but nobody will see its end or keep its log. */
export type RuntimeStatus =
  | { readonly state: 'running'; readonly pid: number }
  | { readonly state: 'created'; readonly pid: number }
  | { readonly state: 'unmonitored'; readonly pid: number }
  | { readonly state: 'stopped' }
  | { readonly state: 'absent' };

/** In runc's and crun's folder of a container for as long as it waits to be started. */
const START_FIFO = 'exec.fifo';
/** What `runc state` and `crun state` agree on. */
const RuntimeState = z.object({ status: z.string(), pid: z.int().nonnegative().default(0) });

/** The name of runc's process, and the program of crun's, until the container's own takes over. */
const RUNC_INIT = /^runc:\[/;
const CRUN_PROGRAM = /^\/memfd:|\/crun(?: |$)/;
/** As an image names it: `SIGQUIT`, `QUIT` or `3`. */
const STOP_SIGNAL = /^(?:SIG)?([A-Z][A-Z0-9+-]{1,11}|\d{1,2})$/;

export class InstanceRuntime {
  readonly #host: ContainerHost;
  readonly #store: InstanceStore;

  constructor(host: ContainerHost, store: InstanceStore) {
    this.#host = host;
    this.#store = store;
  }

  /** Runs no command for an instance that was noted as running. */
  async status(instance: Instance, signal: AbortSignal): Promise<RuntimeStatus> {
    const noted = await findRecord(this.#runningPath(instance), ProcessIdentity);
    if (noted !== undefined) {
      if (!isAlive(noted)) return { state: 'stopped' };
      return {
        state: (await this.#isMonitored(instance)) ? 'running' : 'unmonitored',
        pid: noted.pid,
      };
    }
    return (await this.#isKnown(instance))
      ? this.#askRuntime(instance, signal)
      : { state: 'absent' };
  }

  /**
   * Has it running. Idempotent. Its network namespace must be there.
   * @param options.linked resolves when the namespace has its links: the program is not let go before
   * @param options.restarts goes into its run record when it has to be started
   */
  async start(
    instance: Instance,
    options: {
      spec: ContainerSpec;
      restarts: number;
      linked: Promise<void>;
      signal: AbortSignal;
    },
  ): Promise<void> {
    const { spec, restarts, linked, signal } = options;
    let status = await this.status(instance, signal);
    if (status.state === 'created' && (await this.#finishCutStart(instance, status.pid, signal))) {
      status = { state: 'running', pid: status.pid };
    }
    if (status.state !== 'running' && status.state !== 'created') {
      await this.stop(instance, signal);
      await writeBundle(this.#host, this.#store, instance, { spec, signal });
      status = { state: 'created', pid: await this.#create(instance, signal) };
    }
    if (status.state === 'created') {
      await linked;
      const startedAtMs = this.#host.nowMs();
      // Only where it decides whether there is ever another start must it outlast a loss of power.
      const isDurable = spec.restart === 'never';
      const run = { v: 1, startedAtMs, restarts, halted: false } as const;
      await this.#store.writeRun(instance, run, { isDurable });
      const purpose = `start container ${instance.id}`;
      await this.#runtime(instance, ['start', instance.id], { purpose, signal });
    }
    if ('pid' in status) await this.#noteRunning(instance, status.pid);
  }

  /** Holds its processes, if it has any, to the limits. Idempotent. */
  async adjust(instance: Instance, allowance: Allowance, signal: AbortSignal): Promise<void> {
    const isAlive = async () => 'pid' in (await this.status(instance, signal));
    if (!(await isAlive())) return;
    try {
      const argv = ['update', ...updateArguments(allowance, this.#host), instance.id];
      const purpose = `change the limits of container ${instance.id}`;
      await this.#runtime(instance, argv, { purpose, signal });
    } catch (error) {
      // It may have ended meanwhile: its next start is held to them.
      if (commandFailure(error) === undefined || (await isAlive())) throw error;
    }
  }

  /**
   * Ends its processes (stop signal, grace, SIGKILL) and clears away all that is left of running it,
   * except its bundle. Idempotent, also on what a crash left half made.
   */
  async stop(instance: Instance, signal: AbortSignal): Promise<void> {
    const status = await this.status(instance, signal);
    if ('pid' in status) await this.#end(instance, status, signal);
    await this.#endMonitor(instance, { sawTheEnd: 'pid' in status, signal });
    if (await this.#isKnown(instance)) {
      const argv = ['delete', '--force', instance.id];
      const purpose = `delete container ${instance.id}`;
      await this.#runtime(instance, argv, { purpose, signal });
    }
    await removeCgroups(this.#host, instance, signal);
    const noted = this.#runningPath(instance);
    if (await exists(noted)) await this.#host.effects.change(() => rm(noted, { force: true }));
  }

  /** After `stop`: the bundle, and with it the last trace outside the pool. */
  async clear(instance: Instance, signal: AbortSignal): Promise<void> {
    await removeRunFolder(this.#host, instance, signal);
  }

  async #create(instance: Instance, signal: AbortSignal): Promise<number> {
    const { effects } = this.#host;
    const logPath = this.#store.logPath(instance);
    const exitFolder = this.#store.exitFolder(instance);
    await effects.change(async () => {
      await mkdir(runtimeRoot(this.#host, instance), { recursive: true, mode: 0o700 });
      await this.#store.removeExit(instance);
      await trimLog(logPath);
    });
    return effects.change(() =>
      createMonitored(this.#host, instance, { logPath, exitFolder, signal }),
    );
  }

  /**
   * A killed `start` may have let the program go and not have noted it: asked again it would wait for
   * ever. True when the program runs; then the note is ours to make.
   */
  async #finishCutStart(instance: Instance, pid: number, signal: AbortSignal): Promise<boolean> {
    if ((await this.#store.findRun(instance)) === undefined) return false;
    if (!(await isTakenOver(pid, signal))) return false;
    const fifo = join(runtimeRoot(this.#host, instance), instance.id, START_FIFO);
    await this.#host.effects.change(() => rm(fifo, { force: true }));
    return true;
  }

  async #askRuntime(instance: Instance, signal: AbortSignal): Promise<RuntimeStatus> {
    const { effects, tools } = this.#host;
    const { exitCode, stdout } = await effects.run({
      tool: tools.runtime,
      argv: ['--root', runtimeRoot(this.#host, instance), 'state', instance.id],
      purpose: `read the state of container ${instance.id}`,
      exitCodes: 'any',
      signal,
    });
    // The runtime knows a folder that it cannot read: there is something to delete, nothing to keep.
    if (exitCode !== 0) return { state: 'stopped' };
    const { status, pid } = RuntimeState.parse(JSON.parse(stdout));
    if (status === 'stopped' || pid === 0) return { state: 'stopped' };
    const isSafe = (await hasReported(this.#host, instance)) && (await this.#isMonitored(instance));
    if (!isSafe) return { state: 'unmonitored', pid };
    return { state: status === 'created' ? 'created' : 'running', pid };
  }

  async #noteRunning(instance: Instance, pid: number): Promise<void> {
    const path = this.#runningPath(instance);
    if (await exists(path)) return;
    const identity = identifyProcess(pid);
    // It may have ended already: then the runtime and the exit file tell.
    if (identity === undefined) return;
    await this.#host.effects.change(() => writeRecord(path, identity));
  }

  async #end(
    instance: Instance,
    status: { readonly state: string; readonly pid: number },
    signal: AbortSignal,
  ): Promise<void> {
    const identity = identifyProcess(status.pid);
    if (identity === undefined) return;
    // A container whose folder was taken away is stopped all the same.
    const image = await this.#store.readImage(instance).catch(() => undefined);
    const name = STOP_SIGNAL.exec(image?.stopSignal ?? '')?.[1] ?? 'TERM';
    const isProgram = status.state !== 'created' && (await isTakenOver(status.pid, signal));
    if (isProgram && catches(status.pid, name)) {
      await this.#signal(instance, name, signal);
      if (await endsWithin(identity, CONTAINER_LIMITS.stopGraceMs, signal)) return;
    }
    await this.#signal(instance, 'KILL', signal);
    if (await endsWithin(identity, CONTAINER_LIMITS.killMsMax, signal)) return;
    throw new HyphaError('E_SAL', `cannot stop container ${instance.id}: it outlives SIGKILL`, {
      retryable: true,
      hint: 'a process is stuck in the kernel: look for state D in ps',
    });
  }

  async #signal(instance: Instance, name: string, signal: AbortSignal): Promise<void> {
    try {
      const purpose = `send ${name} to ${instance.id}`;
      await this.#runtime(instance, ['kill', instance.id, name], { purpose, signal });
    } catch (error) {
      // It ended by itself meanwhile; if not, the wait that follows finds out.
      if (commandFailure(error) === undefined) throw error;
    }
  }

  /**
   * The monitor of a container that ended writes the last of its log and its exit code, and ends. False
   * when it does not within its time.
   */
  async waitForMonitor(instance: Instance, signal: AbortSignal): Promise<boolean> {
    const deadline = performance.now() + CONTAINER_LIMITS.monitorEndMsMax;
    while (await this.#isMonitored(instance)) {
      if (performance.now() > deadline) return false;
      await sleep(CONTAINER_LIMITS.pollMsMin, undefined, { signal });
    }
    return true;
  }

  /** One that does not end by itself, or has no container to watch over, is killed. */
  async #endMonitor(
    instance: Instance,
    { sawTheEnd, signal }: { sawTheEnd: boolean; signal: AbortSignal },
  ): Promise<void> {
    if (sawTheEnd) await this.waitForMonitor(instance, signal);
    const fence = await findMonitorFence(this.#host, instance);
    const isEmpty = fence === undefined || (await fence.isEmpty());
    if (!isEmpty || (await this.#isMonitored(instance))) {
      await this.#host.effects.change(async () => {
        await fence?.kill();
        await killMonitor(this.#host, instance);
        await fence?.waitEmpty(signal);
      });
    }
    await fence?.remove();
  }

  async #isMonitored(instance: Instance): Promise<boolean> {
    return (await findMonitor(this.#host, instance)) !== undefined;
  }

  /** To the runtime. Cheaper than asking it, and the same for runc and crun. */
  async #isKnown(instance: Instance): Promise<boolean> {
    return exists(join(runtimeRoot(this.#host, instance), instance.id));
  }

  async #runtime(
    instance: Instance,
    argv: readonly string[],
    { purpose, signal }: { readonly purpose: string; readonly signal: AbortSignal },
  ): Promise<void> {
    await this.#host.effects.run({
      tool: this.#host.tools.runtime,
      argv: ['--root', runtimeRoot(this.#host, instance), ...argv],
      purpose,
      timeoutMs: CONTAINER_LIMITS.runtimeMsMax,
      signal,
    });
  }

  #runningPath(instance: Instance): string {
    return join(instanceRunFolder(this.#host, instance), 'running.json');
  }
}

/**
 * Just after its start the process is still the runtime's own, which catches signals that the container's
 * program, once it takes over, never sees. False when it does not take over: it was never started.
 */
async function isTakenOver(pid: number, signal: AbortSignal): Promise<boolean> {
  const deadline = performance.now() + CONTAINER_LIMITS.takeoverMsMax;
  while (performance.now() < deadline) {
    const name = readKernelFile(`/proc/${pid}/comm`) ?? '';
    const program = await readlink(`/proc/${pid}/exe`).catch(() => '');
    if (!RUNC_INIT.test(name) && !CRUN_PROGRAM.test(program)) return true;
    await sleep(CONTAINER_LIMITS.pollMsMin, undefined, { signal });
  }
  return false;
}

/**
 * False when the signal would be lost on the process: the first of a pid namespace gets no signal it
 * has no handler for, so waiting for its effect would be in vain.
 */
function catches(pid: number, name: string): boolean {
  const known = new Map(Object.entries(constants.signals));
  const number = /^\d+$/.test(name) ? Number(name) : known.get(`SIG${name}`);
  const status = readKernelFile(`/proc/${pid}/status`) ?? '';
  const caught = /^SigCgt:\s*([0-9a-f]+)$/m.exec(status)?.[1];
  if (number === undefined || caught === undefined) return true;
  return ((BigInt(`0x${caught}`) >> BigInt(number - 1)) & 1n) === 1n;
}

async function endsWithin(
  identity: ProcessIdentity,
  withinMs: number,
  signal: AbortSignal,
): Promise<boolean> {
  const deadline = performance.now() + withinMs;
  let delayMs: number = CONTAINER_LIMITS.pollMsMin;
  while (isAlive(identity)) {
    if (performance.now() > deadline) return false;
    await sleep(delayMs, undefined, { signal });
    delayMs = Math.min(delayMs * 2, CONTAINER_LIMITS.pollMsMax);
  }
  return true;
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}
