/**
 * Fencing by death (design §7): a set of processes that can be killed as one, also those that made a
 * session of their own. A cgroup of the v2 hierarchy needs no controller for that, so it works on
 * unified and on hybrid machines alike. Without cgroup v2 there is only the process group, which misses
 * what left it: `hypha doctor` says so.
 */
import { constants } from 'node:fs';
import { access, mkdir, readdir, readFile, rmdir, statfs, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { HyphaError } from '@hypha/protocol';

const CGROUP2_MAGIC = 0x63677270;
const FENCE_NAME = /^[a-z0-9](?:[a-z0-9-]{0,98}[a-z0-9])?$/;
/** `cgroup.procs` takes 0 for the writer itself; `exec` keeps the pid, so the tool is in from its start. */
const JOIN_SCRIPT = 'echo 0 > "$0" && exec "$@"';

export const FENCE_LIMITS = {
  /** Between two looks whether a fence is empty. */
  pollMsMin: 1,
  pollMsMax: 50,
  /** Killed processes that do not go away within this are stuck in the kernel. */
  emptyMsMax: 30_000,
} as const;

export interface CgroupLayout {
  readonly layout: 'unified' | 'hybrid' | 'v1' | 'none';
  /**
   * Where the v2 hierarchy is mounted; undefined when it is not, or when we may make no group there: as
   * anybody but root, and where a container has it read-only.
   */
  readonly cgroup2: string | undefined;
}

/** By file system type, never by version or distribution. */
export async function detectCgroups(root = '/sys/fs/cgroup'): Promise<CgroupLayout> {
  if (await isCgroup2(root)) return { layout: 'unified', cgroup2: await whereWritable(root) };
  const unified = join(root, 'unified');
  if (await isCgroup2(unified)) return { layout: 'hybrid', cgroup2: await whereWritable(unified) };
  const entries = await readdir(root).catch(() => []);
  return { layout: entries.length > 0 ? 'v1' : 'none', cgroup2: undefined };
}

async function isCgroup2(path: string): Promise<boolean> {
  return statfs(path).then(
    (info) => info.type === CGROUP2_MAGIC,
    () => false,
  );
}

async function whereWritable(path: string): Promise<string | undefined> {
  return access(path, constants.W_OK).then(
    () => path,
    () => undefined,
  );
}

export interface Fence {
  readonly driver: 'cgroup' | 'process-group';
  /** The command that joins the fence and then becomes `tool`. Spawn it `detached`. */
  enter(tool: string, argv: readonly string[]): { tool: string; argv: readonly string[] };
  /** Says which process was spawned from `enter`: all a process group has to go by. */
  adopt(pid: number): void;
  isEmpty(): Promise<boolean>;
  /** SIGKILL to everything inside. Idempotent. Returns before they are gone: see `waitEmpty`. */
  kill(): Promise<void>;
  /** Throws `E_SAL` when something inside outlives `emptyMsMax`, or the signal's reason. */
  waitEmpty(signal: AbortSignal): Promise<void>;
  /** Forgets the fence; it must be empty. Idempotent. */
  remove(): Promise<void>;
}

/**
 * Makes the fence, or takes the one of that name that a killed predecessor left, with what is in it.
 * @param options.group one folder per state directory: `hypha-<8 hex>`
 * @param options.name `runner-<id>`, `container-<rid>`
 */
export async function openFence(options: {
  cgroup2: string | undefined;
  group: string;
  name: string;
}): Promise<Fence> {
  const { cgroup2, group, name } = options;
  if (!FENCE_NAME.test(group) || !FENCE_NAME.test(name)) {
    throw new HyphaError('E_INTERNAL', `not a name for a fence: ${group}/${name}`);
  }
  if (cgroup2 === undefined) return new ProcessGroupFence(`${group}/${name}`);
  const path = join(cgroup2, group, name);
  await mkdir(path, { recursive: true });
  return new CgroupFence(path);
}

/** The fence of that name where there is one; a process group leaves no name to find. */
export async function findFence(
  options: Parameters<typeof openFence>[0],
): Promise<Fence | undefined> {
  const { cgroup2, group, name } = options;
  if (cgroup2 === undefined) return openFence(options);
  const isThere = await access(join(cgroup2, group, name)).then(
    () => true,
    () => false,
  );
  return isThere ? openFence(options) : undefined;
}

/** Names of the fences of a group, alive or not: how a restarted supervisor finds strays. */
export async function listFences(cgroup2: string | undefined, group: string): Promise<string[]> {
  if (cgroup2 === undefined) return [];
  return listFolders(join(cgroup2, group));
}

/** Removes the group's folder once all its fences are gone. Idempotent. */
export async function removeFenceGroup(cgroup2: string | undefined, group: string): Promise<void> {
  if (cgroup2 !== undefined) await removeFolder(join(cgroup2, group));
}

class CgroupFence implements Fence {
  readonly driver = 'cgroup';
  readonly #path: string;

  constructor(path: string) {
    this.#path = path;
  }

  enter(tool: string, argv: readonly string[]): { tool: string; argv: readonly string[] } {
    const procs = join(this.#path, 'cgroup.procs');
    return { tool: '/bin/sh', argv: ['-c', JOIN_SCRIPT, procs, tool, ...argv] };
  }

  adopt(): void {}

  async isEmpty(): Promise<boolean> {
    const events = await readFile(join(this.#path, 'cgroup.events'), 'utf8').catch(ignoreAbsent);
    return events === undefined || /^populated 0$/m.test(events);
  }

  async kill(): Promise<void> {
    await writeFile(join(this.#path, 'cgroup.kill'), '1', { flag: 'r+' }).catch(ignoreAbsent);
  }

  async waitEmpty(signal: AbortSignal): Promise<void> {
    await waitUntil(() => this.isEmpty(), `empty ${this.#path}`, signal);
  }

  async remove(): Promise<void> {
    await removeTree(this.#path);
  }
}

class ProcessGroupFence implements Fence {
  readonly driver = 'process-group';
  readonly #name: string;
  #pid: number | undefined;

  constructor(name: string) {
    this.#name = name;
  }

  enter(tool: string, argv: readonly string[]): { tool: string; argv: readonly string[] } {
    return { tool, argv };
  }

  adopt(pid: number): void {
    this.#pid = pid;
  }

  async isEmpty(): Promise<boolean> {
    return !this.#signal(0);
  }

  async kill(): Promise<void> {
    this.#signal('SIGKILL');
  }

  async waitEmpty(signal: AbortSignal): Promise<void> {
    await waitUntil(() => this.isEmpty(), `empty the process group of ${this.#name}`, signal);
  }

  async remove(): Promise<void> {
    this.#pid = undefined;
  }

  /** False when there is nobody to signal. */
  #signal(signal: NodeJS.Signals | 0): boolean {
    if (this.#pid === undefined) return false;
    try {
      process.kill(-this.#pid, signal);
      return true;
    } catch {
      return false;
    }
  }
}

async function waitUntil(
  isDone: () => Promise<boolean>,
  purpose: string,
  signal: AbortSignal,
): Promise<void> {
  const deadline = performance.now() + FENCE_LIMITS.emptyMsMax;
  let delayMs: number = FENCE_LIMITS.pollMsMin;
  while (!(await isDone())) {
    signal.throwIfAborted();
    if (performance.now() > deadline) {
      throw new HyphaError('E_SAL', `cannot ${purpose} within ${FENCE_LIMITS.emptyMsMax} ms`, {
        hint: 'a process is stuck in the kernel: look for state D in ps',
      });
    }
    await sleep(delayMs);
    delayMs = Math.min(delayMs * 2, FENCE_LIMITS.pollMsMax);
  }
}

async function listFolders(path: string): Promise<string[]> {
  const entries = await readdir(path, { withFileTypes: true }).catch(ignoreAbsent);
  return (entries ?? []).filter((entry) => entry.isDirectory()).map((entry) => entry.name);
}

/** A cgroup folder's files cannot be unlinked: only the folders are removed, children first. */
async function removeTree(path: string): Promise<void> {
  for (const child of await listFolders(path)) await removeTree(join(path, child));
  await removeFolder(path);
}

async function removeFolder(path: string): Promise<void> {
  try {
    await rmdir(path);
  } catch (cause) {
    if (codeOf(cause) === 'ENOENT') return;
    throw new HyphaError('E_SAL', `cannot remove cgroup ${path}`, {
      cause,
      hint: 'something still runs in it: see its cgroup.procs',
    });
  }
}

function ignoreAbsent(error: unknown): undefined {
  // ENODEV is what an open file of a cgroup removed meanwhile answers.
  if (codeOf(error) === 'ENOENT' || codeOf(error) === 'ENODEV') return undefined;
  throw error;
}

function codeOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error ? String(error.code) : undefined;
}
