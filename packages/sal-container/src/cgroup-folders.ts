/**
 * The container's cgroups as files, in every hierarchy of this machine: one on cgroup v2, one per
 * controller on v1, both kinds on a hybrid.
 */
import { readFile, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { HyphaError } from '@hypha/protocol';
import { type ContainerHost, cgroupPath, type Instance } from './container-host.ts';
import { CONTAINER_LIMITS } from './container-limits.ts';

interface Hierarchy {
  readonly path: string;
  readonly version: 1 | 2;
  /** v1: `memory`, `cpu` … */
  readonly controllers: readonly string[];
}

export interface ContainerStats {
  /** Since the container started. */
  readonly cpuMs: number | null;
  readonly memoryBytes: number | null;
  readonly pids: number | null;
}

/** Null is what the machine does not count. */
export async function readStats(host: ContainerHost, instance: Instance): Promise<ContainerStats> {
  const hierarchies = await listHierarchies();
  const read = async (
    v1: readonly [controller: string, file: string],
    v2: readonly [file: string, field?: string],
  ): Promise<number | null> => {
    const legacy = hierarchies.find(({ controllers }) => controllers.includes(v1[0]));
    const hierarchy = legacy ?? hierarchies.find(({ version }) => version === 2);
    if (hierarchy === undefined) return null;
    const [file, field] = legacy === undefined ? v2 : [v1[1]];
    const path = join(hierarchy.path, cgroupPath(host, instance), file);
    const text = await readFile(path, 'utf8').catch(() => undefined);
    const value = field === undefined ? text : fieldOf(text, field);
    return value === undefined || !/^\d+\s*$/.test(value) ? null : Number(value);
  };
  const isUnified = !hierarchies.some(({ controllers }) => controllers.includes('cpuacct'));
  const cpu = await read(['cpuacct', 'cpuacct.usage'], ['cpu.stat', 'usage_usec']);
  return {
    cpuMs: cpu === null ? null : Math.round(cpu / (isUnified ? 1e3 : 1e6)),
    memoryBytes: await read(['memory', 'memory.usage_in_bytes'], ['memory.current']),
    pids: await read(['pids', 'pids.current'], ['pids.current']),
  };
}

/**
 * Kills what is still in the container's cgroups and removes them. Idempotent. Throws `E_SAL` when a
 * process outlives SIGKILL.
 */
export async function removeCgroups(
  host: ContainerHost,
  instance: Instance,
  signal: AbortSignal,
): Promise<void> {
  for (const { path } of await listHierarchies()) {
    const folder = join(path, cgroupPath(host, instance));
    if ((await readProcesses(folder)) === undefined) continue;
    await host.effects.change(() => emptyFolder(folder, signal));
  }
}

/** Removes the folder of this state directory where nothing is left in it. Idempotent. */
export async function removeEmptyGroups(host: ContainerHost): Promise<void> {
  for (const { path } of await listHierarchies()) {
    await rmdir(join(path, host.group)).catch(() => undefined);
  }
}

async function emptyFolder(folder: string, signal: AbortSignal): Promise<void> {
  const deadline = performance.now() + CONTAINER_LIMITS.killMsMax;
  for (;;) {
    for (const pid of (await readProcesses(folder)) ?? []) kill(pid);
    const isGone = await rmdir(folder).then(
      () => true,
      (error: NodeJS.ErrnoException) => error.code === 'ENOENT',
    );
    if (isGone) return;
    if (performance.now() > deadline) {
      throw new HyphaError('E_SAL', `cannot empty cgroup ${folder}`, {
        retryable: true,
        hint: 'a process is stuck in the kernel: look for state D in ps',
      });
    }
    await sleep(CONTAINER_LIMITS.pollMsMin, undefined, { signal });
  }
}

/** Undefined when there is no such cgroup. */
async function readProcesses(folder: string): Promise<readonly number[] | undefined> {
  const text = await readFile(join(folder, 'cgroup.procs'), 'utf8').catch(() => undefined);
  return text?.split('\n').flatMap((line) => (line === '' ? [] : [Number(line)]));
}

function kill(pid: number): void {
  try {
    // 0 is what a process of another pid namespace reads as, and would mean ourselves.
    if (pid > 1) process.kill(pid, 'SIGKILL');
  } catch {
    // It has ended meanwhile.
  }
}

async function listHierarchies(): Promise<readonly Hierarchy[]> {
  const text = await readFile('/proc/self/mountinfo', 'utf8');
  return text.split('\n').flatMap((line): Hierarchy[] => {
    const [mount = '', tail = ''] = line.split(' - ');
    const path = mount.split(' ')[4] ?? '';
    const [type, , options = ''] = tail.split(' ');
    if (type === 'cgroup2') return [{ path, version: 2, controllers: [] }];
    return type === 'cgroup' ? [{ path, version: 1, controllers: options.split(',') }] : [];
  });
}

function fieldOf(text: string | undefined, field: string): string | undefined {
  const line = text?.split('\n').find((candidate) => candidate.startsWith(`${field} `));
  return line?.slice(field.length + 1);
}
