/**
 * Starts processes, restarts one that dies, stops all of them. What an init system is for `systemd`
 * installations, this is for `hypha up`.
 *
 * Every child gets an IPC channel: it says `{ready}` over it, and sees our death as `disconnect`, so a
 * `kill -9` of `hypha up` leaves no service behind. Programs that are not ours (Redis) get none.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { HyphaError } from '@hypha/protocol';
import { childEnvironment } from '../config.ts';

export interface ProcessSpec {
  readonly name: string;
  readonly command: string;
  readonly args: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** Output of all its lives, appended. */
  readonly logFile: string;
  /** Ours: announces readiness over IPC. Otherwise `probe` decides. */
  readonly announces: boolean;
  /** For a process without IPC: resolves true when it answers. */
  readonly probe?: () => Promise<boolean>;
}

export interface RunningProcess {
  readonly name: string;
  readonly pid: number;
}

/**
 * A core dump would hold keys and passwords; what a service writes is nobody else's business. The process
 * id stays the same.
 */
const CLOSED_SHIM = 'ulimit -c 0; umask 077; exec "$@"';

const RESTART_MS_MIN = 200;
const RESTART_MS_MAX = 10_000;
/** A life this long counts as healthy: the next restart is quick again. */
const HEALTHY_MS = 10_000;
/** Before it was ready once: what a person starts in vain should end, and say why. */
const FAILED_STARTS_MAX = 4;
const EXIT_BAD_CONFIG = 78;
const LOG_TAIL_BYTES = 2000;
const PROBE_MS = 50;
/** Longer than a service gives itself (30 s): it, not we, should end its stop. */
const STOP_MS_MAX = 45_000;

export class ProcessManager {
  readonly #processes = new Map<string, ManagedProcess>();
  readonly #onChange: (running: readonly RunningProcess[]) => void;

  /** @param onChange told after every start and exit, so that pids can be kept for a successor */
  constructor(onChange: (running: readonly RunningProcess[]) => void) {
    this.#onChange = onChange;
  }

  /**
   * Resolves when it is ready. Throws `E_UNAVAILABLE` with the log's place when it is not in time, and with
   * the log's end when it ends again and again.
   */
  async start(
    spec: ProcessSpec,
    options: { readyMsMax: number; signal: AbortSignal },
  ): Promise<void> {
    const managed = new ManagedProcess(spec, () => this.#onChange(this.list()));
    this.#processes.set(spec.name, managed);
    await managed.start(options);
  }

  list(): RunningProcess[] {
    return [...this.#processes.values()].flatMap((managed) =>
      managed.pid === undefined ? [] : [{ name: managed.name, pid: managed.pid }],
    );
  }

  /** Stops in the reverse order of starting. Idempotent. */
  async stop(): Promise<void> {
    for (const managed of [...this.#processes.values()].reverse()) await managed.stop();
    this.#processes.clear();
  }
}

class ManagedProcess {
  readonly #spec: ProcessSpec;
  readonly #onChange: () => void;
  #child: ChildProcess | undefined;
  #stopping = false;
  #restartMs = RESTART_MS_MIN;
  #restartTimer: NodeJS.Timeout | undefined;
  #ready = Promise.withResolvers<void>();
  #isReady = false;
  #failedStarts = 0;

  constructor(spec: ProcessSpec, onChange: () => void) {
    this.#spec = spec;
    this.#onChange = onChange;
    this.#ready.promise.then(
      () => {
        this.#isReady = true;
      },
      () => undefined,
    );
  }

  get name(): string {
    return this.#spec.name;
  }

  get pid(): number | undefined {
    return this.#child?.pid;
  }

  async start(options: { readyMsMax: number; signal: AbortSignal }): Promise<void> {
    this.#spawn();
    const deadline = AbortSignal.timeout(options.readyMsMax);
    const signal = AbortSignal.any([options.signal, deadline]);
    const aborted = Promise.withResolvers<never>();
    const onAbort = () => aborted.reject(this.#notReady(options.readyMsMax));
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      await Promise.race([this.#ready.promise, aborted.promise]);
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
  }

  #notReady(waitedMs: number): HyphaError {
    return new HyphaError(
      'E_UNAVAILABLE',
      `${this.name} was not ready after ${waitedMs / 1000} s`,
      {
        hint: `see ${this.#spec.logFile}`,
      },
    );
  }

  #notStarting(): HyphaError {
    const { logFile } = this.#spec;
    return new HyphaError('E_UNAVAILABLE', `${this.name} ended before it was ready`, {
      hint: `see ${logFile}`,
      details: [readFileSync(logFile, 'utf8').trimEnd().slice(-LOG_TAIL_BYTES)],
    });
  }

  #spawn(): void {
    const log = openSync(this.#spec.logFile, 'a', 0o600);
    const startedAt = performance.now();
    const args = ['-c', CLOSED_SHIM, this.name, this.#spec.command, ...this.#spec.args];
    const child = spawn('/bin/sh', args, {
      stdio: this.#spec.announces ? ['ignore', log, log, 'ipc'] : ['ignore', log, log],
      env: childEnvironment(this.#spec.env),
      // Its own group: Ctrl-C in a terminal reaches us alone, and we stop things in order.
      detached: true,
    });
    closeSync(log);
    this.#child = child;
    child.on('message', (message) => {
      if (typeof message === 'object' && message !== null && 'ready' in message)
        this.#ready.resolve();
    });
    child.on('error', () => this.#ended(startedAt, null));
    child.on('exit', (exitCode) => this.#ended(startedAt, exitCode));
    if (this.#spec.probe !== undefined) void this.#probe(this.#spec.probe);
    this.#onChange();
  }

  async #probe(probe: () => Promise<boolean>): Promise<void> {
    while (!this.#stopping && this.#child !== undefined) {
      if (await probe().catch(() => false)) return this.#ready.resolve();
      await new Promise((resolve) => setTimeout(resolve, PROBE_MS));
    }
  }

  #ended(startedAt: number, exitCode: number | null): void {
    if (this.#child === undefined) return;
    this.#child = undefined;
    this.#onChange();
    if (this.#stopping) return;
    if (!this.#isReady) {
      this.#failedStarts++;
      const isHopeless = exitCode === EXIT_BAD_CONFIG || this.#failedStarts >= FAILED_STARTS_MAX;
      if (isHopeless) {
        this.#ready.reject(this.#notStarting());
        return;
      }
    }
    if (performance.now() - startedAt > HEALTHY_MS) this.#restartMs = RESTART_MS_MIN;
    this.#restartTimer = setTimeout(() => this.#spawn(), this.#restartMs);
    this.#restartMs = Math.min(this.#restartMs * 2, RESTART_MS_MAX);
  }

  /** SIGTERM, then SIGKILL after a bound. */
  async stop(): Promise<void> {
    this.#stopping = true;
    clearTimeout(this.#restartTimer);
    const child = this.#child;
    if (child === undefined || child.exitCode !== null) return;
    const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()));
    child.kill('SIGTERM');
    const kill = setTimeout(() => child.kill('SIGKILL'), STOP_MS_MAX);
    await exited;
    clearTimeout(kill);
  }
}
