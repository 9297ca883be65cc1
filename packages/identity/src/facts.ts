import { access, readFile } from 'node:fs/promises';
import * as os from 'node:os';
import type { NodeFacts } from '@hypha/protocol';
import manifest from '../package.json' with { type: 'json' };

/**
 * What this machine is, as measured now. Storage and the states of the SALs are known to the caller, who
 * opened them. Nothing here is trusted by anyone: placement labels come from the admission.
 */
export async function readFacts(
  given: Pick<NodeFacts, 'storageBytes' | 'sals'>,
): Promise<NodeFacts> {
  return {
    hostname: os.hostname().slice(0, 255),
    os: (await readOsName()).slice(0, 255),
    kernel: os.release().slice(0, 255),
    arch: process.arch,
    // Both honour what a container or an affinity mask leaves of the machine.
    cpus: os.availableParallelism(),
    memoryBytes: memoryBytes(),
    storageBytes: given.storageBytes,
    hyphaVersion: manifest.version,
    nodeVersion: process.versions.node,
    cgroups: await readCgroupLayout(),
    sals: given.sals,
  };
}

function memoryBytes(): number {
  const limit = process.constrainedMemory();
  return limit > 0 ? Math.min(os.totalmem(), limit) : os.totalmem();
}

async function readOsName(): Promise<string> {
  const release = await readFile('/etc/os-release', 'utf8').catch(() => '');
  const pretty = /^PRETTY_NAME="?([^"\n]+)"?$/m.exec(release)?.[1];
  return pretty ?? `${os.type()} ${os.release()}`;
}

/** `v2`: one tree; `v1`: one tree per controller; `hybrid`: v1 with a v2 tree that has no controllers. */
export async function readCgroupLayout(
  root = '/sys/fs/cgroup',
): Promise<'v1' | 'v2' | 'hybrid' | 'none'> {
  const has = (path: string) =>
    access(`${root}/${path}`).then(
      () => true,
      () => false,
    );
  if (await has('cgroup.controllers')) return 'v2';
  if (await has('unified/cgroup.procs')) return 'hybrid';
  return (await has('memory')) || (await has('pids')) ? 'v1' : 'none';
}
