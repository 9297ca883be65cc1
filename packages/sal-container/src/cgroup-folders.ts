/**
 * The container's cgroups as files, in every hierarchy of this machine: one on cgroup v2, one per
 * controller on v1, both kinds on a hybrid.
 */
import { rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { HyphaError } from '@hypha/protocol';
import { type ContainerHost, cgroupPath, type Instance } from './container-host.ts';
import { CONTAINER_LIMITS } from './container-limits.ts';
import { readKernelFile } from './kernel-file.ts';

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
export function readStats(host: ContainerHost, instance: Instance): ContainerStats {
  const hierarchies = listHierarchies();
  const v1 = (controller: string, file: string): number | null => {
    const found = hierarchies.find(({ controllers }) => controllers.includes(controller));
    return found === undefined ? null : readNumber(found, host, instance, file);
  };
  const unified = hierarchies.find(({ version }) => version === 2);
  const v2 = (file: string, field?: string): number | null =>
    unified === undefined ? null : readNumber(unified, host, instance, file, field);
  const nanoseconds = v1('cpuacct', 'cpuacct.usage');
  const microseconds = nanoseconds === null ? v2('cpu.stat', 'usage_usec') : nanoseconds / 1e3;
  return {
    cpuMs: microseconds === null ? null : Math.round(microseconds / 1e3),
    memoryBytes: v1('memory', 'memory.usage_in_bytes') ?? v2('memory.current'),
    pids: v1('pids', 'pids.current') ?? v2('pids.current'),
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
  for (const { path } of listHierarchies()) {
    const folder = join(path, cgroupPath(host, instance));
    if (readProcesses(folder) === undefined) continue;
    await host.effects.change(() => emptyFolder(folder, signal));
  }
}

/** Removes the folder of this state directory where nothing is left in it. Idempotent. */
export async function removeEmptyGroups(host: ContainerHost): Promise<void> {
  for (const { path } of listHierarchies()) {
    await rmdir(join(path, host.group)).catch(() => undefined);
  }
}

async function emptyFolder(folder: string, signal: AbortSignal): Promise<void> {
  const deadline = performance.now() + CONTAINER_LIMITS.killMsMax;
  for (;;) {
    for (const pid of readProcesses(folder) ?? []) kill(pid);
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
function readProcesses(folder: string): readonly number[] | undefined {
  const text = readKernelFile(join(folder, 'cgroup.procs'));
  return text?.split('\n').flatMap((line) => (line === '' ? [] : [Number(line)]));
}

function readNumber(
  hierarchy: Hierarchy,
  host: ContainerHost,
  instance: Instance,
  file: string,
  field?: string,
): number | null {
  const text = readKernelFile(join(hierarchy.path, cgroupPath(host, instance), file));
  const lines = text?.split('\n') ?? [];
  const value =
    field === undefined
      ? lines[0]
      : lines.find((line) => line.startsWith(`${field} `))?.slice(field.length + 1);
  return value === undefined || !/^\d+$/.test(value) ? null : Number(value);
}

function kill(pid: number): void {
  try {
    // 0 is what a process of another pid namespace reads as, and would mean ourselves.
    if (pid > 1) process.kill(pid, 'SIGKILL');
  } catch {
    // It has ended meanwhile.
  }
}

function listHierarchies(): readonly Hierarchy[] {
  const text = readKernelFile('/proc/self/mountinfo') ?? '';
  return text.split('\n').flatMap((line): Hierarchy[] => {
    const [mount = '', tail = ''] = line.split(' - ');
    const path = mount.split(' ')[4] ?? '';
    const [type, , options = ''] = tail.split(' ');
    if (type === 'cgroup2') return [{ path, version: 2, controllers: [] }];
    return type === 'cgroup' ? [{ path, version: 1, controllers: options.split(',') }] : [];
  });
}
