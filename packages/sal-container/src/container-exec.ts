/** A command in a running container, with the end of what it printed. */
import { type ChildProcess, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { HyphaError } from '@hypha/protocol';
import { COMMAND_ENV, type ContainerSpec } from '@hypha/sal';
import { z } from 'zod';
import {
  type ContainerHost,
  cgroupPath,
  type Instance,
  instanceRunFolder,
  runtimeRoot,
} from './container-host.ts';
import { CONTAINER_LIMITS } from './container-limits.ts';
import type { InstanceStore } from './instance-store.ts';
import { readKernelFile } from './kernel-file.ts';
import { buildProcess } from './runtime-config.ts';
import { resolveSecrets } from './secret-values.ts';

const EXEC_LOOK_MS = 10;

export interface ExecOutcome {
  /** 128 and the signal's number when one ended it. */
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface ExecRequest {
  readonly spec: ContainerSpec;
  readonly command: readonly string[];
  /** Of a call: the process that an earlier attempt of the same call left is ended first. */
  readonly key: string;
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
}

const LogLine = z.object({ level: z.string(), msg: z.string() });

/**
 * Runs it and waits for its end. The process is ended, too, at the deadline or with the signal. Throws
 * `E_ARGUMENT` when the container has no such command, `E_TIMEOUT` when it does not end in time.
 */
export async function execInContainer(
  host: ContainerHost,
  store: InstanceStore,
  instance: Instance,
  request: ExecRequest,
): Promise<ExecOutcome> {
  request.signal.throwIfAborted();
  const [record, image] = await Promise.all([store.read(instance), store.readImage(instance)]);
  const files = execFiles(host, instance, request.key);
  await endProcess(host, instance, files.pid);
  await rm(files.pid, { force: true });
  const { spec, command, signal } = request;
  const { label } = record;
  const { env } = await resolveSecrets(host, label, spec, signal);
  const process = buildProcess({ label, spec, env, image }, command);
  try {
    // In a file, because arguments and variables of a process are for all to see.
    await writeFile(files.process, JSON.stringify(process), { mode: 0o600 });
    const outcome = await runExec(host, instance, files, request);
    if (outcome.exitCode !== 0) await checkRuntimeLog(files.log, instance, command);
    return outcome;
  } finally {
    for (const path of Object.values(files)) await rm(path, { force: true });
  }
}

export interface ExecFiles {
  readonly process: string;
  readonly pid: string;
  readonly log: string;
}

/** Named after the call, so that a later attempt finds what an earlier one left. */
export function execFiles(host: ContainerHost, instance: Instance, key: string): ExecFiles {
  const name = createHash('sha256').update(key).digest('hex').slice(0, 16);
  const path = join(instanceRunFolder(host, instance), `exec-${name}`);
  return { process: `${path}.json`, pid: `${path}.pid`, log: `${path}.log` };
}

async function runExec(
  host: ContainerHost,
  instance: Instance,
  files: ExecFiles,
  { timeoutMs, signal }: ExecRequest,
): Promise<ExecOutcome> {
  const child = spawn(
    host.tools.runtime,
    [
      ...[
        '--root',
        runtimeRoot(host, instance),
        '--log',
        files.log,
        '--log-format',
        'json',
        'exec',
      ],
      ...['--process', files.process, '--pid-file', files.pid, instance.id],
    ],
    { cwd: '/', env: COMMAND_ENV, stdio: ['ignore', 'pipe', 'pipe'] },
  );
  let pipeTimer: NodeJS.Timeout | undefined;
  const stdout = keepTail(child.stdout);
  const stderr = keepTail(child.stderr);
  const ended = Promise.withResolvers<number>();
  child.once('error', ended.reject);
  child.once('close', (code) => ended.resolve(code ?? -1));
  child.once('exit', () => {
    // A process in the background that holds the pipes is not waited for.
    pipeTimer = setTimeout(() => {
      child.stdout.destroy();
      child.stderr.destroy();
    }, CONTAINER_LIMITS.execPipeMsMax);
  });
  const deadline = AbortSignal.timeout(timeoutMs);
  const stopped = AbortSignal.any([signal, deadline]);
  const onStop = () => void endExec(host, instance, files.pid, child);
  stopped.addEventListener('abort', onStop, { once: true });
  if (stopped.aborted) onStop();
  try {
    const exitCode = await ended.promise;
    signal.throwIfAborted();
    if (deadline.aborted) {
      throw new HyphaError(
        'E_TIMEOUT',
        `command in ${instance.id} did not end within ${timeoutMs} ms`,
        {
          hint: 'give it a longer timeout',
        },
      );
    }
    return { exitCode, stdout: stdout(), stderr: stderr() };
  } finally {
    stopped.removeEventListener('abort', onStop);
    clearTimeout(pipeTimer);
  }
}

/**
 * Ends the process, then the runtime that waits for it. Until the runtime has written its id down nobody else knows the
 * process, which would go on without the runtime: so that gets a moment. Never throws.
 */
async function endExec(
  host: ContainerHost,
  instance: Instance,
  path: string,
  child: ChildProcess,
): Promise<void> {
  const overMs = performance.now() + CONTAINER_LIMITS.execStartMsMax;
  const isRunning = () => child.exitCode === null && child.signalCode === null;
  while (isRunning() && performance.now() < overMs) {
    if (await endProcess(host, instance, path)) break;
    await delay(EXEC_LOOK_MS);
  }
  child.kill('SIGKILL');
}

/** SIGKILL to the process of a pid file, if it is still one of this container's. False: there is no such file yet. */
async function endProcess(host: ContainerHost, instance: Instance, path: string): Promise<boolean> {
  const pid = Number(await readFile(path, 'utf8').catch(() => '0'));
  if (!Number.isSafeInteger(pid) || pid < 2) return false;
  const cgroups = readKernelFile(`/proc/${pid}/cgroup`) ?? '';
  if (!cgroups.includes(cgroupPath(host, instance))) return true;
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It has ended meanwhile.
  }
  return true;
}

function keepTail(stream: Readable): () => string {
  let kept = Buffer.alloc(0);
  stream.on('data', (chunk: Buffer) => {
    kept = Buffer.concat([kept, chunk]).subarray(-CONTAINER_LIMITS.execOutputBytesMax);
  });
  return () => kept.toString('utf8');
}

/** The exit code of a command and of a runtime that failed look the same: only the log tells them apart. */
async function checkRuntimeLog(
  path: string,
  instance: Instance,
  command: readonly string[],
): Promise<void> {
  const text = await readFile(path, 'utf8').catch(() => '');
  const failure = text
    .split('\n')
    .map((line) => LogLine.safeParse(parseJson(line)).data)
    .find((line) => line?.level === 'error');
  if (failure === undefined) return;
  const isCommand = /exec: .*(?:not found|no such file|permission denied)/.test(failure.msg);
  const tool = (command[0] ?? '').slice(0, 200);
  throw new HyphaError(
    isCommand ? 'E_ARGUMENT' : 'E_SAL',
    `cannot run ${tool} in container ${instance.id}`,
    {
      ...(isCommand ? { where: { path: 'command' } } : {}),
      details: { message: failure.msg.slice(0, 2000) },
    },
  );
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
