/** Everything a node has on the machine, in a form that two nodes share: no pid, no time, no own name. */
import { readdir, readFile, stat, statfs } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import type { Json } from '@hypha/protocol';
import { runCommand } from '@hypha/sal';
import { contractRid } from '@hypha/sal/contract';
import { listRunFolders } from '../bundle.ts';
import { type ContainerHost, parseInstanceId, runtimeRoot } from '../container-host.ts';
import { findMonitor } from '../monitor.ts';
import { attachmentOf } from '../network-attachment.ts';

/** Names of the containers that tests declare. */
const NAMES = ['web', 'job', 'one', 'two'] as const;
const NSFS_MAGIC = 0x6e736673;

export async function readTraces(host: ContainerHost): Promise<Json> {
  return {
    pool: await readPool(host),
    runFolders: await readRunFolders(host),
    runtime: await readRuntime(host),
    network: await readNetwork(host),
    cgroups: await readCgroups(host),
  };
}

/** Nothing at all: what a node has before its first container and after its last. */
export const NO_TRACES: Json = { pool: {}, runFolders: {}, runtime: {}, network: {}, cgroups: [] };

async function readPool(host: ContainerHost): Promise<Json> {
  const folder = join(host.pool.root, 'containers');
  const found: Record<string, Json> = {};
  for (const name of (await readdir(folder).catch(() => [])).toSorted()) {
    if (name.endsWith('.current')) found[name] = await readFile(join(folder, name), 'utf8');
    else found[name] = await readInstance(join(folder, name));
  }
  return found;
}

async function readInstance(folder: string): Promise<Json> {
  const record = await readFile(join(folder, 'instance.json'), 'utf8').catch(() => null);
  const data = await readdir(join(folder, 'rootfs/data')).catch(() => null);
  return { record, data };
}

async function readRunFolders(host: ContainerHost): Promise<Json> {
  const found: Record<string, Json> = {};
  for (const name of (await readdir(host.runFolder).catch(() => [])).toSorted()) {
    const instance = parseInstanceId(name);
    if (instance === undefined) continue;
    found[name] = { monitored: (await findMonitor(host, instance)) !== undefined };
  }
  return found;
}

async function readRuntime(host: ContainerHost): Promise<Json> {
  const found: Record<string, Json> = {};
  for (const instance of await listRunFolders(host)) {
    const { stdout } = await runCommand({
      tool: host.tools.runtime,
      argv: ['--root', runtimeRoot(host, instance), 'list', '--format', 'json'],
      purpose: 'list containers',
      signal: AbortSignal.timeout(10_000),
    });
    const list = JSON.parse(stdout) as { id: string; status: string }[] | null;
    for (const { id, status } of list ?? []) found[id] = status;
  }
  return found;
}

async function readNetwork(host: ContainerHost): Promise<Json> {
  const found: Record<string, Json> = {};
  for (const name of NAMES) {
    const attachment = attachmentOf(host, contractRid('container', name));
    const space = await statfs(attachment.namespacePath).catch(() => undefined);
    const link = await stat(`/sys/class/net/${attachment.name}`).catch(() => undefined);
    if (space === undefined && link === undefined) continue;
    found[name] = { namespace: space?.type === NSFS_MAGIC, link: link !== undefined };
  }
  return found;
}

async function readCgroups(host: ContainerHost): Promise<Json> {
  const found = await Promise.all(
    (await listGroupFolders(host)).map(async (folder) => {
      const entries = await readdir(folder, { withFileTypes: true }).catch(() => []);
      const inside = entries.flatMap((entry) => (entry.isDirectory() ? [entry.name] : []));
      return Promise.all(
        inside.map(async (name) => {
          const limits = await readLimits(join(folder, name));
          return `${basename(dirname(folder))}/${name}${limits}`;
        }),
      );
    }),
  );
  return found.flat().toSorted();
}

const LIMIT_FILES = [
  ...['memory.limit_in_bytes', 'memory.max', 'cpu.cfs_quota_us', 'cpu.shares', 'cpu.max'],
  ...['cpu.weight', 'pids.max'],
] as const;

/** What a cgroup is held to, by the files of either version. */
async function readLimits(folder: string): Promise<string> {
  const texts = await Promise.all(
    LIMIT_FILES.map(async (file) => {
      const text = await readFile(join(folder, file), 'utf8').catch(() => undefined);
      return text === undefined ? '' : ` ${file}=${text.trim()}`;
    }),
  );
  return texts.join('');
}

/** The node's own cgroup folders, in every hierarchy that has one. */
export async function listGroupFolders(host: ContainerHost): Promise<readonly string[]> {
  const mounts = await readFile('/proc/self/mountinfo', 'utf8');
  const roots = mounts
    .split('\n')
    .flatMap((line) => (/ - cgroup2? /.test(line) ? [line.split(' ')[4] ?? ''] : []));
  const folders = await Promise.all(
    roots.map(async (root) => {
      const folder = join(root, host.group);
      return (await stat(folder).catch(() => undefined)) === undefined ? [] : [folder];
    }),
  );
  return folders.flat();
}
