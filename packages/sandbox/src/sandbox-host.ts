import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Readable, Writable } from 'node:stream';
import { type ErrorCode, HyphaError } from '@hypha/protocol';
import { CpuDeadline, type TimeSpent } from './cpu-deadline.ts';
import { HostAnswer, HostReady, type HostRequest } from './host/host-message.ts';
import { LineReader } from './host/line-reader.ts';
import type { HostCommand } from './host-command.ts';
import { SANDBOX_LIMITS } from './limits.ts';

interface Waiting {
  /** Takes a line that is an answer; throws on anything else. */
  readonly take: (line: string) => void;
  readonly reject: (error: unknown) => void;
}

export interface AskOptions {
  /** CPU time the host may take to answer, milliseconds; real time where the system does not tell. */
  readonly timeoutMs: number;
  /** What it means when the time is over. */
  readonly timeoutCode: ErrorCode;
  /** Length of the answer, bytes of JSON. */
  readonly answerBytesMax: number;
}

/**
 * One sandbox host process, seen from its runner: a request, an answer, nothing else. Whatever is not an
 * answer to the last request, in time and in form, kills it with SIGKILL, which also ends what no
 * interrupt reaches (security notes §0.2). Dead once, dead for good.
 */
export class SandboxHost {
  readonly #child: ChildProcess;
  readonly #input: Writable;
  readonly #lines = new LineReader(SANDBOX_LIMITS.readyBytesMax);
  readonly #exited: Promise<void>;
  readonly #gone = Promise.withResolvers<unknown>();
  #waiting: Waiting | undefined;
  #isAlive = true;

  private constructor(child: ChildProcess, input: Writable, output: Readable) {
    this.#child = child;
    this.#input = input;
    this.#exited = once(child, 'close').then(
      () => this.#onExit(),
      () => this.#onExit(),
    );
    output.on('data', (chunk: Buffer) => this.#onData(chunk));
    // A host that died says so by its exit; all else that fails fails on the way there.
    for (const source of [child, input, output]) source.on('error', () => {});
  }

  /**
   * Resolves once the host can take a script. Throws `E_UNAVAILABLE`, whatever kept it from that: no script has been in
   * it.
   */
  static async start(command: HostCommand): Promise<SandboxHost> {
    try {
      return await SandboxHost.#open(command);
    } catch (cause) {
      throw new HyphaError('E_UNAVAILABLE', 'a sandbox host could not be started', { cause });
    }
  }

  static async #open(command: HostCommand): Promise<SandboxHost> {
    const child = spawn(command.file, [...command.args], {
      cwd: '/',
      env: {},
      // Whatever it says on stderr may hold paths of this machine; nobody needs it.
      stdio: ['pipe', 'pipe', 'ignore'],
    });
    const { stdin, stdout } = child;
    if (stdin === null || stdout === null) {
      throw new HyphaError('E_INTERNAL', 'the sandbox host has no pipes');
    }
    const host = new SandboxHost(child, stdin, stdout);
    await host.#await((line) => HostReady.parse(JSON.parse(line)), {
      timeoutMs: SANDBOX_LIMITS.hostStartMsMax,
      timeoutCode: 'E_UNAVAILABLE',
      answerBytesMax: SANDBOX_LIMITS.readyBytesMax,
    });
    return host;
  }

  /** Resolves with the reason once it is dead, whatever ended it. */
  get gone(): Promise<unknown> {
    return this.#gone.promise;
  }

  /** Resolves once the process has ended. */
  get exited(): Promise<void> {
    return this.#exited;
  }

  get isAlive(): boolean {
    return this.#isAlive;
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  /**
   * Throws when there is no valid answer, for the script it was asked for, in time; the host is dead then, or will
   * be when `stop` resolves.
   */
  async ask(request: HostRequest, options: AskOptions): Promise<HostAnswer> {
    if (!this.#isAlive) throw new HyphaError('E_SANDBOX', 'the sandbox host is gone');
    if (this.#waiting !== undefined) throw new HyphaError('E_INTERNAL', 'the sandbox host is busy');
    const answer = this.#await((line) => this.#parse(line, request.guest), options);
    this.#input.write(`${JSON.stringify(request)}\n`);
    return await answer;
  }

  /** End of file, as when this process dies. */
  closeInput(): void {
    this.#input.end();
  }

  /** Kills it and waits until it is gone. Idempotent. */
  async stop(reason?: unknown): Promise<void> {
    this.#kill(reason ?? new HyphaError('E_SANDBOX', 'the sandbox host was stopped'));
    await this.#exited;
  }

  async #await<T>(parse: (line: string) => T, options: AskOptions): Promise<T> {
    const { timeoutMs, timeoutCode } = options;
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    // A child that could not be started has no id; its `close` comes soon.
    const deadline = new CpuDeadline(this.#child.pid ?? 0, timeoutMs, (spent) => {
      this.#kill(timeoutError(timeoutCode, timeoutMs, spent));
    });
    const take = (line: string) => resolve(parse(line));
    this.#waiting = { take, reject };
    this.#lines.bytesMax = options.answerBytesMax;
    try {
      return await promise;
    } finally {
      deadline.clear();
    }
  }

  #onData(chunk: Buffer): void {
    if (!this.#isAlive) return;
    try {
      for (const line of this.#lines.push(chunk)) this.#onLine(line);
    } catch (cause) {
      if (cause instanceof HyphaError) this.#kill(cause);
      else
        this.#kill(new HyphaError('E_SANDBOX', 'the sandbox host broke its protocol', { cause }));
    }
  }

  #onLine(line: string): void {
    const waiting = this.#waiting;
    if (waiting === undefined) throw new Error('an answer that nobody asked for');
    waiting.take(line);
    this.#waiting = undefined;
  }

  /** Throws a `HyphaError` when the host reports a fault. */
  #parse(line: string, guest: number): HostAnswer {
    const answer = HostAnswer.parse(JSON.parse(line));
    if (answer.guest !== guest) throw new Error('an answer for another script');
    if (answer.type === 'fault') throw new HyphaError(answer.code, answer.message);
    return answer;
  }

  #kill(reason: unknown): void {
    if (!this.#isAlive) return;
    this.#child.kill('SIGKILL');
    this.#die(reason);
  }

  #onExit(): void {
    const { exitCode, signalCode } = this.#child;
    const how = signalCode ?? `exit code ${exitCode ?? 'unknown'}`;
    this.#die(new HyphaError('E_SANDBOX', `the sandbox host ended: ${how}`));
  }

  #die(reason: unknown): void {
    this.#isAlive = false;
    this.#waiting?.reject(reason);
    this.#waiting = undefined;
    this.#gone.resolve(reason);
  }
}

function timeoutError(code: ErrorCode, timeoutMs: number, spent: TimeSpent): HyphaError {
  const time = `${Math.round(timeoutMs)} ms`;
  const message =
    code === 'E_CPU'
      ? `the script still computed after ${time} and was killed`
      : `the sandbox host did not answer within ${time}`;
  return new HyphaError(code, message, { details: spent });
}
