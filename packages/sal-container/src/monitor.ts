/**
 * conmon, one per container: it creates the container through the runtime, keeps its log, writes its exit
 * code and lives on when whoever started it dies. It joins a fence of its own before anything else, so
 * that fencing a runner never takes a container with it.
 */
import { spawn } from 'node:child_process';
import { readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { HyphaError } from '@hypha/protocol';
import { COMMAND_ENV, type Fence, findFence, openFence, withToolUmask } from '@hypha/sal';
import { z } from 'zod';
import {
  type ContainerHost,
  type Instance,
  instanceRunFolder,
  runtimeRoot,
} from './container-host.ts';
import { CONTAINER_LIMITS } from './container-limits.ts';
import { readKernelFile } from './kernel-file.ts';

/** File descriptor of the pipe on which conmon reports. */
const SYNC_FD = 3;
const REPORT_BYTES_MAX = 64 * 1024;

/** conmon 2.0 says `data`, 2.1 `pid`; negative is a failure, with the runtime's words. */
const Report = z.object({
  pid: z.int().optional(),
  data: z.int().optional(),
  message: z.string().optional(),
});

/** Undefined where no monitor can be. */
export function findMonitorFence(
  host: ContainerHost,
  instance: Instance,
): Promise<Fence | undefined> {
  return findFence(fenceOf(host, instance));
}

function fenceOf(host: ContainerHost, { id }: Instance): Parameters<typeof openFence>[0] {
  return { cgroup2: host.cgroups.cgroup2, group: host.group, name: `container-${id}` };
}

/**
 * Creates the container of a written bundle and leaves its monitor behind. Nothing of it may be there.
 * Returns the pid of the container's first process, which waits to be started.
 * Throws `E_ARGUMENT` when the image has no such command, else `E_SAL`; what is half made by then, the
 * next stop of the instance clears away.
 */
export async function createMonitored(
  host: ContainerHost,
  instance: Instance,
  options: { logPath: string; exitFolder: string; signal: AbortSignal },
): Promise<number> {
  const { signal } = options;
  signal.throwIfAborted();
  await rm(oomPath(host, instance), { force: true });
  await rm(reportedPath(host, instance), { force: true });
  const fence = await openFence(fenceOf(host, instance));
  const { tool, argv } = fence.enter(host.tools.conmon, monitorArguments(host, instance, options));
  const child = withToolUmask(() =>
    spawn(tool, argv, {
      // Where it leaves its word that the container ran out of memory.
      cwd: instanceRunFolder(host, instance),
      detached: true,
      env: { ...COMMAND_ENV, _OCI_SYNCPIPE: String(SYNC_FD) },
      stdio: ['ignore', 'ignore', 'ignore', 'pipe'],
    }),
  );
  if (child.pid !== undefined) fence.adopt(child.pid);
  const started = Promise.withResolvers<never>();
  child.once('error', started.reject);
  child.unref();
  // Our end of a `pipe` beyond the first three is a socket, readable and writable.
  const pipe = child.stdio[SYNC_FD] as Readable;
  try {
    const deadline = AbortSignal.timeout(CONTAINER_LIMITS.runtimeMsMax);
    const text = await Promise.race([
      readReport(pipe, AbortSignal.any([signal, deadline])),
      started.promise,
    ]);
    const pid = readPid(text, instance);
    await writeFile(reportedPath(host, instance), '');
    return pid;
  } catch (cause) {
    await fence.kill();
    await fence.waitEmpty(AbortSignal.timeout(CONTAINER_LIMITS.killMsMax));
    signal.throwIfAborted();
    if (cause instanceof HyphaError) throw cause;
    throw new HyphaError('E_SAL', `cannot create container ${instance.id}: no report`, { cause });
  } finally {
    pipe.destroy();
  }
}

/** The monitor's pid, or undefined when it has ended. */
export async function findMonitor(
  host: ContainerHost,
  instance: Instance,
): Promise<number | undefined> {
  const path = join(instanceRunFolder(host, instance), 'conmon.pid');
  const pid = Number(await readFile(path, 'utf8').catch(() => '0'));
  if (!Number.isSafeInteger(pid) || pid < 2) return undefined;
  // The pid may be another's by now: the arguments say whose it is, and a zombie has none.
  const command = readKernelFile(`/proc/${pid}/cmdline`) ?? '';
  const [tool, ...argv] = command.split('\0');
  return tool === host.tools.conmon && argv.includes(instance.id) ? pid : undefined;
}

/**
 * True once the monitor's report was heard. A monitor whose listener died before dies of its own report, however
 * well the creation went: nobody may rely on it.
 */
export async function hasReported(host: ContainerHost, instance: Instance): Promise<boolean> {
  return stat(reportedPath(host, instance)).then(
    () => true,
    () => false,
  );
}

/** True when a process of the container was ended because its memory was used up. */
export async function wasOutOfMemory(host: ContainerHost, instance: Instance): Promise<boolean> {
  return stat(oomPath(host, instance)).then(
    () => true,
    () => false,
  );
}

/** Idempotent. */
export async function killMonitor(host: ContainerHost, instance: Instance): Promise<void> {
  const pid = await findMonitor(host, instance);
  try {
    if (pid !== undefined) process.kill(pid, 'SIGKILL');
  } catch {
    // It has ended meanwhile.
  }
}

function oomPath(host: ContainerHost, instance: Instance): string {
  return join(instanceRunFolder(host, instance), 'oom');
}

function reportedPath(host: ContainerHost, instance: Instance): string {
  return join(instanceRunFolder(host, instance), 'reported');
}

function monitorArguments(
  host: ContainerHost,
  instance: Instance,
  options: { logPath: string; exitFolder: string },
): readonly string[] {
  const folder = instanceRunFolder(host, instance);
  return [
    ...['--cid', instance.id, '--cuuid', instance.id, '--name', instance.id],
    ...['--runtime', host.tools.runtime],
    ...['--runtime-arg', '--root', '--runtime-arg', runtimeRoot(host, instance)],
    ...['--bundle', folder, '--container-pidfile', join(folder, 'container.pid')],
    ...['--conmon-pidfile', join(folder, 'conmon.pid')],
    ...['--exit-dir', options.exitFolder],
    ...['--log-path', `k8s-file:${options.logPath}`],
    ...['--log-size-max', String(CONTAINER_LIMITS.logBytesMax)],
    '--full-attach',
    ...['--log-level', 'error'],
  ];
}

/** The first line: conmon keeps its end open for as long as it lives. */
async function readReport(pipe: Readable, signal: AbortSignal): Promise<string> {
  let text = '';
  const onAbort = () => pipe.destroy(new Error('aborted'));
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    signal.throwIfAborted();
    for await (const chunk of pipe) {
      text += String(chunk);
      if (text.includes('\n') || text.length > REPORT_BYTES_MAX) break;
    }
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
  return text;
}

function readPid(text: string, { id }: Instance): number {
  const report = Report.safeParse(parseJson(text.split('\n')[0] ?? ''));
  const pid = report.data?.pid ?? report.data?.data ?? -1;
  if (pid > 0) return pid;
  const message = (report.data?.message ?? text).slice(-2000);
  const isCommand = /executable file not found|no such file or directory|permission denied/.test(
    message.match(/exec: .*/)?.[0] ?? '',
  );
  if (isCommand) {
    throw new HyphaError('E_ARGUMENT', `cannot run the command of container ${id}`, {
      where: { path: 'command' },
      hint: 'check that the image has the command and that it is executable',
      details: { message },
    });
  }
  throw new HyphaError('E_SAL', `cannot create container ${id}`, {
    // The folder of all cgroups goes with the last container, perhaps while this one is made.
    retryable: /cgroup/.test(message),
    details: { message },
  });
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
