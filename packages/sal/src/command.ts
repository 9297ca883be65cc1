/**
 * The one way SALs run external commands: an absolute path, an argv array, a fixed environment, a
 * deadline and an output bound (security notes §2.8). There is no shell, so nothing is ever quoted.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { constants } from 'node:fs';
import { access, stat } from 'node:fs/promises';
import { isAbsolute, join } from 'node:path';
import type { Readable } from 'node:stream';
import { HyphaError } from '@hypha/protocol';

const TOOL_FOLDERS = [
  '/usr/local/sbin',
  '/usr/local/bin',
  '/usr/sbin',
  '/usr/bin',
  '/sbin',
  '/bin',
] as const;

export const COMMAND_LIMITS = {
  /** Deadline of a command that names none. */
  timeoutMs: 30_000,
  /** Bytes of stdout and of stderr each, when the caller names none. */
  outputBytesMax: 4 * 1024 * 1024,
  /** From SIGTERM at the deadline to SIGKILL. */
  killDelayMs: 2000,
  /** How long pipes that a grandchild keeps open are waited for once the command has exited. */
  pipeDelayMs: 1000,
  /** Characters of stderr and of the argv kept in an error. */
  errorTextMax: 2000,
} as const;

/** Every command sees this and nothing else; `C` keeps messages as the adapters know them. */
export const COMMAND_ENV: Readonly<Record<string, string>> = {
  PATH: TOOL_FOLDERS.join(':'),
  LC_ALL: 'C',
};

export interface Command {
  /** Absolute path, as `findTool` gave it. */
  readonly tool: string;
  readonly argv: readonly string[];
  /** What it is for, with ids: becomes the error's message (`create subvolume volumes/abc…`). */
  readonly purpose: string;
  readonly signal: AbortSignal;
  readonly timeoutMs?: number;
  readonly outputBytesMax?: number;
  /** Written to stdin, which is else empty. */
  readonly input?: string | Uint8Array;
  readonly cwd?: string;
  /**
   * `discard` gives the command /dev/null for stdout and stderr: for tools that leave a child behind,
   * which would else hold the pipes. Default `capture`.
   */
  readonly output?: 'capture' | 'discard';
  /** Exit codes that are an answer, not a failure. Default `[0]`; `any` for all of them. */
  readonly exitCodes?: readonly number[] | 'any';
}

export interface CommandResult {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

/**
 * Port: adapters take it, so a contract suite can interrupt them after any command. Throws `HyphaError`
 * `E_SAL` with a `CommandFailure` as details, or the signal's reason once that is aborted; by then the
 * command has ended, unless not even SIGKILL ends it.
 */
export type RunCommand = (command: Command) => Promise<CommandResult>;

/** `details` of the `E_SAL` error of a command that failed. */
export interface CommandFailure {
  readonly tool: string;
  readonly argv: readonly string[];
  /** Null when a signal ended it or it never started. */
  readonly exitCode: number | null;
  readonly signal: string | null;
  readonly timedOut: boolean;
  /** The last 2000 characters. */
  readonly stderr: string;
}

/** Absolute path of an installed tool, or undefined. Only system folders are searched, never `PATH`. */
export async function findTool(name: string): Promise<string | undefined> {
  for (const folder of TOOL_FOLDERS) {
    const path = join(folder, name);
    const found = await access(path, constants.X_OK).then(
      async () => (await stat(path)).isFile(),
      () => false,
    );
    if (found) return path;
  }
  return undefined;
}

export const runCommand: RunCommand = async (command) => {
  if (!isAbsolute(command.tool)) {
    throw new HyphaError('E_INTERNAL', `tool ${command.tool} is not an absolute path`);
  }
  command.signal.throwIfAborted();
  const stuck = waitUntilStuck(command);
  try {
    const result = await Promise.race([waitForEnd(command), stuck.promise]);
    if (result === 'stuck' || result.isCanceled) command.signal.throwIfAborted();
    return checkEnd(command, result === 'stuck' ? STUCK : result);
  } finally {
    stuck.cancel();
  }
};

/** As most machines have it. */
const TOOL_UMASK = 0o022;

/**
 * Spawns a tool whose files others are to read: what it unpacks or makes is what containers see, and the
 * umask of this process, which closes everything, is not for them. A fork happens before `spawn` returns.
 */
export function withToolUmask<T>(spawn: () => T): T {
  const own = process.umask(TOOL_UMASK);
  try {
    return spawn();
  } finally {
    process.umask(own);
  }
}

/**
 * Plain `spawn`: a library that does the same costs several times its processor time, and a step may need half a
 * dozen commands.
 */
function start(command: Command): ChildProcess {
  const output = command.output === 'discard' ? 'ignore' : 'pipe';
  return spawn(command.tool, command.argv, {
    cwd: command.cwd ?? '/',
    env: COMMAND_ENV,
    stdio: [command.input === undefined ? 'ignore' : 'pipe', output, output],
  });
}

/** Resolves with whatever end it takes; SIGTERM at the deadline, the bound or the signal, then SIGKILL. */
async function waitForEnd(command: Command): Promise<CommandEnd & { isCanceled: boolean }> {
  const { timeoutMs, outputBytesMax, killDelayMs, pipeDelayMs } = COMMAND_LIMITS;
  const seen = { timedOut: false, isMaxBuffer: false, isCanceled: false };
  let child: ChildProcess;
  try {
    child = withToolUmask(() => start(command));
  } catch (cause) {
    // An argument that no command can have.
    return { ...seen, stdout: '', stderr: '', cause };
  }
  const { promise, resolve } = Promise.withResolvers<Partial<CommandEnd>>();
  const timers: NodeJS.Timeout[] = [];
  const end = (why: keyof typeof seen) => {
    seen[why] = true;
    child.kill('SIGTERM');
    timers.push(setTimeout(() => child.kill('SIGKILL'), killDelayMs));
  };
  const onAbort = () => end('isCanceled');
  command.signal.addEventListener('abort', onAbort, { once: true });
  timers.push(setTimeout(() => end('timedOut'), command.timeoutMs ?? timeoutMs));
  const bound = {
    bytesMax: command.outputBytesMax ?? outputBytesMax,
    onFull: () => end('isMaxBuffer'),
  };
  const stdout = collect(child.stdout, bound);
  const stderr = collect(child.stderr, bound);
  child.once('error', (cause) => resolve({ cause }));
  child.once('exit', () => {
    // A grandchild that inherited the pipes must not make us wait for its whole life.
    timers.push(
      setTimeout(() => {
        child.stdout?.destroy();
        child.stderr?.destroy();
      }, pipeDelayMs),
    );
  });
  child.once('close', (code, signal) => {
    resolve({ exitCode: code ?? undefined, signal: signal ?? undefined });
  });
  // Whether it reads all of it is its own affair.
  child.stdin?.on('error', () => undefined);
  child.stdin?.end(command.input);
  try {
    const ended = await promise;
    return { ...seen, ...ended, stdout: stdout(), stderr: stderr() };
  } finally {
    command.signal.removeEventListener('abort', onAbort);
    for (const timer of timers) clearTimeout(timer);
  }
}

/** Keeps what comes, up to the bound. */
function collect(
  stream: Readable | null,
  { bytesMax, onFull }: { readonly bytesMax: number; readonly onFull: () => void },
): () => string {
  const chunks: Buffer[] = [];
  let bytes = 0;
  stream?.on('data', (chunk: Buffer) => {
    const wasFull = bytes > bytesMax;
    bytes += chunk.length;
    if (bytes <= bytesMax) chunks.push(chunk);
    else if (!wasFull) onFull();
  });
  return () => Buffer.concat(chunks).toString('utf8');
}

const STUCK: CommandEnd = { timedOut: true, isMaxBuffer: false, stdout: '', stderr: '' };

/**
 * A process in uninterruptible sleep outlives SIGKILL: after the deadline and all delays it is left
 * to its fence.
 */
function waitUntilStuck(command: Command): { promise: Promise<'stuck'>; cancel: () => void } {
  const { killDelayMs, pipeDelayMs, timeoutMs } = COMMAND_LIMITS;
  const { promise, resolve } = Promise.withResolvers<'stuck'>();
  const delayMs = 2 * (killDelayMs + pipeDelayMs);
  const timers = [setTimeout(() => resolve('stuck'), (command.timeoutMs ?? timeoutMs) + delayMs)];
  const onAbort = () => timers.push(setTimeout(() => resolve('stuck'), delayMs));
  command.signal.addEventListener('abort', onAbort, { once: true });
  const cancel = () => {
    command.signal.removeEventListener('abort', onAbort);
    for (const timer of timers) clearTimeout(timer);
  };
  return { promise, cancel };
}

interface CommandEnd {
  readonly exitCode?: number | undefined;
  readonly signal?: string | undefined;
  readonly timedOut: boolean;
  readonly isMaxBuffer: boolean;
  readonly stdout: string;
  readonly stderr: string;
  readonly cause?: unknown;
}

function checkEnd(command: Command, end: CommandEnd): CommandResult {
  const { exitCode, stdout, stderr } = end;
  const expected = command.exitCodes ?? [0];
  const whole = exitCode !== undefined && !end.timedOut && !end.isMaxBuffer;
  if (whole && (expected === 'any' || expected.includes(exitCode))) {
    return { exitCode, stdout, stderr };
  }
  const failure: CommandFailure = {
    tool: command.tool,
    argv: boundArgv(command.argv),
    exitCode: exitCode ?? null,
    signal: end.signal ?? null,
    timedOut: end.timedOut,
    stderr: stderr.slice(-COMMAND_LIMITS.errorTextMax),
  };
  throw new HyphaError('E_SAL', `cannot ${command.purpose}: ${command.tool} ${endingOf(end)}`, {
    details: failure,
    cause: end.cause,
  });
}

/** The particulars of a failed command, or undefined when the error is another. */
export function commandFailure(error: unknown): CommandFailure | undefined {
  const isCommand =
    error instanceof HyphaError &&
    error.code === 'E_SAL' &&
    typeof error.details === 'object' &&
    error.details !== null &&
    'argv' in error.details;
  // Only `runCommand` puts an argv into the details of an `E_SAL` error.
  return isCommand ? (error.details as CommandFailure) : undefined;
}

function endingOf(end: CommandEnd): string {
  if (end.timedOut) return 'missed its deadline';
  if (end.isMaxBuffer) return 'printed more than its bound';
  if (end.exitCode !== undefined) return `exited with ${end.exitCode}`;
  return end.signal === undefined ? 'did not start' : `was ended by ${end.signal}`;
}

function boundArgv(argv: readonly string[]): readonly string[] {
  const kept: string[] = [];
  let left = COMMAND_LIMITS.errorTextMax;
  for (const argument of argv) {
    if (argument.length > left) return [...kept, '…'];
    left -= argument.length;
    kept.push(argument);
  }
  return kept;
}
