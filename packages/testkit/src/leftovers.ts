import { readdir, readFile, readlink } from 'node:fs/promises';
import { join } from 'node:path';

export interface LeftoverQuery {
  /** State folders: what is mounted there, backed by a file there, or runs from there. */
  readonly paths: readonly string[];
  /** Names of links, network namespaces, containers and cgroups; an anchored expression. */
  readonly names?: RegExp;
  /** Where runc or crun keep their containers. */
  readonly runtimeRoots?: readonly string[];
}

/**
 * What is still on the machine of something that was to clean up after itself, one sentence each; empty
 * when nothing is. Reads the kernel's own tables, so that it needs no tool and no root.
 */
export async function findLeftovers(query: LeftoverQuery): Promise<readonly string[]> {
  const found = await Promise.all([
    findMounts(query),
    findLoopDevices(query),
    findLinks(query),
    findNetns(query),
    findContainers(query),
    findCgroups(query),
    findProcesses(query),
  ]);
  return found.flat();
}

async function findMounts({ paths }: LeftoverQuery): Promise<string[]> {
  const lines = (await readText('/proc/self/mounts')).split('\n');
  return lines.flatMap((line) => {
    const [source = '', target = '', type = ''] = line.split(' ').map(unescapeMount);
    return isBelow(target, paths) || isBelow(source, paths)
      ? [`mount ${target} (${type} from ${source})`]
      : [];
  });
}

async function findLoopDevices({ paths }: LeftoverQuery): Promise<string[]> {
  const found: string[] = [];
  for (const device of await list('/sys/block')) {
    const backing = await readText(`/sys/block/${device}/loop/backing_file`);
    const file = backing.trim().replace(/ \(deleted\)$/, '');
    if (file !== '' && isBelow(file, paths))
      found.push(`loop device ${device} of ${backing.trim()}`);
  }
  return found;
}

async function findLinks({ names }: LeftoverQuery): Promise<string[]> {
  const links = await list('/sys/class/net');
  return links.filter((name) => names?.test(name)).map((name) => `network link ${name}`);
}

async function findNetns({ names }: LeftoverQuery): Promise<string[]> {
  const namespaces = await list('/run/netns');
  return namespaces.filter((name) => names?.test(name)).map((name) => `network namespace ${name}`);
}

async function findContainers({ names, paths, runtimeRoots }: LeftoverQuery): Promise<string[]> {
  const found: string[] = [];
  for (const root of runtimeRoots ?? ['/run/runc', '/run/crun']) {
    for (const id of await list(root)) {
      const state = await readText(join(root, id, 'state.json'));
      const isOurs = paths.some((path) => state.includes(`${path}/`)) || isBelow(root, paths);
      if (isOurs || names?.test(id)) found.push(`container ${id} in ${root}`);
    }
  }
  return found;
}

/** In the v2 tree and in every v1 tree, three levels deep: runners and containers are no deeper. */
async function findCgroups({ names }: LeftoverQuery): Promise<string[]> {
  if (names === undefined) return [];
  const found: string[] = [];
  const visit = async (folder: string, depth: number): Promise<void> => {
    const entries = await readdir(folder, { withFileTypes: true }).catch(() => []);
    for (const entry of entries) {
      if (!entry.isDirectory()) continue;
      const path = join(folder, entry.name);
      if (names.test(entry.name)) found.push(`cgroup ${path}`);
      else if (depth > 0) await visit(path, depth - 1);
    }
  };
  await visit('/sys/fs/cgroup', 3);
  return found;
}

async function findProcesses({ paths }: LeftoverQuery): Promise<string[]> {
  const found: string[] = [];
  for (const pid of await list('/proc')) {
    if (!/^\d+$/.test(pid) || Number(pid) === process.pid) continue;
    const command = (await readText(`/proc/${pid}/cmdline`)).replaceAll('\0', ' ').trim();
    const cwd = await readlink(`/proc/${pid}/cwd`).catch(() => '');
    if (paths.some((path) => command.includes(path)) || isBelow(cwd, paths))
      found.push(`process ${pid}: ${command}`);
  }
  return found;
}

function isBelow(path: string, roots: readonly string[]): boolean {
  return roots.some((root) => path === root || path.startsWith(`${root}/`));
}

/** The kernel writes blanks in the mount table as octal. */
function unescapeMount(field: string): string {
  return field.replace(/\\([0-7]{3})/g, (_, octal: string) =>
    String.fromCharCode(Number.parseInt(octal, 8)),
  );
}

/** Empty when it went away meanwhile or is not there. */
async function readText(path: string): Promise<string> {
  return readFile(path, 'utf8').catch(() => '');
}

async function list(path: string): Promise<string[]> {
  return readdir(path).catch(() => []);
}
