import { existsSync } from 'node:fs';
import { mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { type Json, nodeIdOf, type Rid } from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import { composeSals, EFFECTS, type Effects, NO_SECRETS, type Sals } from '@hypha/sal';
import {
  type BtrfsTools,
  findBtrfsTools,
  type OpenPool,
  openBtrfsVolumes,
  openPool,
} from '@hypha/sal-btrfs';
import { type ContainerMachine, createContainerSal, detectContainers } from '@hypha/sal-container';
import { buildBusyboxImage, findImageLack } from '@hypha/sal-container/testing';
import { engineClock } from '../../packages/runner/src/engine-clock.ts';
import type { ContainerHost } from '../../packages/sal-container/src/container-host.ts';
import { Containers } from '../../packages/sal-container/src/containers.ts';
import { attachmentOf } from '../../packages/sal-container/src/network-attachment.ts';
import { listGroupFolders } from '../../packages/sal-container/src/testing/traces.ts';
import { ONCE_FILE } from './crash-script.ts';
import { type CrashWorld, knownOf, nodeKey, readLabel, withoutNames } from './crash-world.ts';

const POOL_BYTES = 512 * 1024 * 1024;
const SIGNAL_MS = 120_000;

/** As a skip reason; undefined when this machine can have real volumes and containers. */
export async function findRealLack(): Promise<string | undefined> {
  const { status } = await detectContainers(signal());
  if (status.state !== 'real') return `needs containers: ${status.reason}`;
  const tools = await findBtrfsTools();
  const systems = await readFile('/proc/filesystems', 'utf8').catch(() => '');
  if (!tools.found || !/\bbtrfs\b/.test(systems)) return 'needs btrfs and loop devices';
  return await findImageLack();
}

/** A node of this machine: a pool on a loop file, an image that is pulled once, containers of runc. */
export class RealWorld implements CrashWorld {
  readonly node = nodeIdOf(nodeVerifier, nodeKey.publicKey);
  readonly signer = nodeKey;
  readonly image: string;
  readonly #folder: string;
  readonly #tools: BtrfsTools;
  readonly #machine: ContainerMachine;
  readonly #pool: OpenPool;

  private constructor(options: {
    folder: string;
    image: string;
    tools: BtrfsTools;
    machine: ContainerMachine;
    pool: OpenPool;
  }) {
    this.#folder = options.folder;
    this.image = options.image;
    this.#tools = options.tools;
    this.#machine = options.machine;
    this.#pool = options.pool;
  }

  static async create(): Promise<RealWorld> {
    const [{ machine }, found] = await Promise.all([detectContainers(signal()), findBtrfsTools()]);
    if (machine === undefined || !found.found) throw new Error('not on this machine');
    const folder = await mkdtemp(join(tmpdir(), 'hy-crash-'));
    const layout = { folder: join(folder, 'layout'), tag: 'web' };
    const command = ['/bin/sleep', '100000'];
    const image = await buildBusyboxImage({ ...layout, command, stopSignal: 'SIGKILL' });
    const { tools } = found;
    const config = imageConfig(folder);
    const pool = await openPool({ config, tools, role: 'owner', signal: signal() });
    return new RealWorld({ folder, image, tools, machine, pool });
  }

  async open(effects: Effects): Promise<Sals> {
    let now = EFFECTS;
    const opening: Effects = {
      run: (command) => now.run(command),
      change: (change) => now.change(change),
    };
    const pool = await openPool({
      ...{ config: imageConfig(this.#folder), tools: this.#tools, role: 'guest' },
      ...{ effects: opening, signal: signal() },
    });
    now = effects;
    const volumes = openBtrfsVolumes({ open: pool, cp: this.#tools.cp, effects });
    const host = this.#host(effects, pool);
    const container = createContainerSal({
      ...{ ...host, machine: this.#machine, status: { state: 'real', driver: 'test' } },
      ...{ findVolume: volumes.findVolume, nowMs: () => host.nowMs() },
    });
    return composeSals([volumes.sal, container]);
  }

  async list(deployment: string): Promise<readonly string[]> {
    const found = knownOf(deployment).map(async ({ kind, name, rid }) => {
      if (kind === 'container') {
        return (await this.#has(`containers/${rid}.current`)) ? [`container ${name}`] : [];
      }
      const isThere = await this.#has(`volumes/${rid}/label.json`);
      const snapshots = (await this.#names(`snapshots/${rid}`)).filter(isWhole);
      return [
        ...(isThere ? [`volume ${name}`] : []),
        ...snapshots.map((snapshot) => `snapshot ${name}/${snapshot}`),
      ];
    });
    return (await Promise.all(found)).flat();
  }

  async readOnce(deployment: string): Promise<readonly string[]> {
    const data = knownOf(deployment).find(({ name }) => name === 'data');
    const file = this.#path(`volumes/${data?.rid}/data/${ONCE_FILE}`);
    const lines = (await readFile(file, 'utf8').catch(() => '')).split('\n');
    return lines.filter((line) => line !== '');
  }

  async capture(deployment: string): Promise<Json> {
    const found: Record<string, Json> = {};
    for (const { kind, name, rid } of knownOf(deployment)) {
      for (const folder of ['volumes', 'snapshots', 'containers']) {
        const entries = (await this.#names(folder)).filter((entry) => entry.includes(rid));
        for (const entry of entries) {
          const named = withoutNames(`${folder}/${entry}`, deployment);
          const key = found[named] === undefined ? named : `${named} again`;
          const isData = folder !== 'containers';
          found[key] = isData ? await this.#read(`${folder}/${entry}`, deployment) : 'there';
        }
      }
      if (kind === 'volume') continue;
      const container = await this.#captureContainer(rid, deployment);
      if (container !== undefined) found[name] = container;
    }
    return found;
  }

  async close(): Promise<void> {
    const groups = await listGroupFolders(this.#host(EFFECTS, this.#pool));
    await this.#pool.close(signal());
    await rm(this.#folder, { recursive: true });
    if (groups.length > 0) throw new Error(`left behind: ${groups.join(', ')}`);
  }

  async #captureContainer(rid: Rid, deployment: string): Promise<Json | undefined> {
    const containers = new Containers(this.#host(EFFECTS, this.#pool));
    const current = await containers.store.findCurrent(rid);
    const folders = await this.#names(join(this.#folder, 'run'), '');
    const runs = folders.filter((name) => name.includes(rid)).length;
    const { name, namespacePath } = attachmentOf(containers.host, rid);
    const places = { namespace: namespacePath, link: `/sys/class/net/${name}` };
    const network = Object.entries(places).flatMap(([part, path]) =>
      existsSync(path) ? [part] : [],
    );
    if (current === undefined) {
      return runs === 0 && network.length === 0 ? undefined : { runs, network };
    }
    const { label, ...record } = await containers.store.read(current);
    const { state } = await containers.runtime.status(current, signal());
    const createdBy = withoutNames(label.createdBy, deployment);
    const memory: string[] = [];
    for (const group of await listGroupFolders(containers.host)) {
      for (const name of ['memory.limit_in_bytes', 'memory.max']) {
        const file = join(group, current.id, name);
        const text = await readFile(file, 'utf8').catch(() => undefined);
        if (text !== undefined) memory.push(`${name} ${text.trim()}`);
      }
    }
    const declared = JSON.parse(withoutNames(JSON.stringify(record), deployment)) as Json;
    return { runs, network, createdBy, declared: withoutHashes(declared), state, memory };
  }

  /** Files and folders below a path of the pool, with what they hold. */
  async #read(path: string, deployment: string): Promise<Json> {
    const info = await stat(this.#path(path));
    if (!info.isDirectory()) {
      const text = await readFile(this.#path(path), 'utf8');
      const isLabel = /^(?:label|snapshot)\.json$/.test(basename(path));
      return isLabel ? readLabel(text, deployment) : text;
    }
    const entries = await this.#names(path);
    const read = entries.toSorted().map(async (entry) => {
      return [entry, await this.#read(`${path}/${entry}`, deployment)] as const;
    });
    return Object.fromEntries(await Promise.all(read));
  }

  #host(effects: Effects, { pool }: OpenPool): ContainerHost {
    const suffix = this.node.slice(-8);
    return {
      ...this.#machine,
      ...{ node: this.node, effects, pool, secrets: NO_SECRETS, plainRegistries: [] },
      findVolume: async () => undefined,
      runFolder: join(this.#folder, 'run'),
      group: `hypha-${Buffer.from(suffix).toString('hex').slice(0, 8)}`,
      nowMs: engineClock.nowMs,
    };
  }

  async #has(path: string): Promise<boolean> {
    return stat(this.#path(path)).then(
      () => true,
      () => false,
    );
  }

  async #names(path: string, root = this.#pool.pool.root): Promise<readonly string[]> {
    return await readdir(join(root, path)).catch(() => []);
  }

  #path(path: string): string {
    return join(this.#pool.pool.root, path);
  }
}

function imageConfig(folder: string) {
  const [file, mountPoint] = [join(folder, 'pool.img'), join(folder, 'pool')];
  return { type: 'image', file, mountPoint, sizeBytes: POOL_BYTES } as const;
}

/** Handles of volumes are hashed, and those of two deployments differ. */
function withoutHashes(declared: Json): Json {
  return JSON.parse(JSON.stringify(declared).replaceAll(/[0-9a-f]{64}/g, 'HASH')) as Json;
}

function isWhole(name: string): boolean {
  return !name.startsWith('.tmp-');
}

function signal(): AbortSignal {
  return AbortSignal.timeout(SIGNAL_MS);
}
