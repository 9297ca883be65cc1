import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { base32, type Json, type NodeId } from '@hypha/protocol';
import { EFFECTS, type Effects, type ResourceRecord, type Sal } from '@hypha/sal';
import {
  applyWhole,
  type ContractCall,
  type ContractWorld,
  contractRid,
  recordOf,
} from '@hypha/sal/contract';
import { BtrfsPool, findBtrfsTools, type OpenPool, openPool } from '@hypha/sal-btrfs';
import { expect, vi } from 'vitest';
import type { ContainerHost } from '../container-host.ts';
import { createContainerSal } from '../container-sal.ts';
import { Containers } from '../containers.ts';
import { type ContainerMachine, detectContainers } from '../runtime-detection.ts';
import { buildBusyboxImage, findImageLack } from './busybox-image.ts';
import { readTraces } from './traces.ts';

const POOL_BYTES = 512 * 1024 * 1024;
const SIGNAL_MS = 120_000;

export function signal(): AbortSignal {
  return AbortSignal.timeout(SIGNAL_MS);
}

/** What this machine lacks for real containers; undefined when it is all there. */
export async function findLack(): Promise<string | undefined> {
  const { status } = await detectContainers(signal());
  if (status.state !== 'real') return `needs containers: ${status.reason}`;
  const tools = await findBtrfsTools();
  const systems = await readFile('/proc/filesystems', 'utf8').catch(() => '');
  if (!tools.found || !/\bbtrfs\b/.test(systems)) return 'needs btrfs and loop devices';
  return findImageLack();
}

/** A pool on a loop file, an image, and as many nodes on it as a test file asks for. */
export class Scratch {
  readonly folder: string;
  readonly machine: ContainerMachine;
  /** One for all its nodes, so that they give the same addresses, which no other test file does. */
  readonly node: NodeId;
  /** `oci:…` of an image that serves `/www` on port 80. */
  readonly image: string;
  readonly #open: OpenPool;
  readonly #btrfs: string;
  #made = 0;

  private constructor(options: {
    folder: string;
    machine: ContainerMachine;
    image: string;
    open: OpenPool;
    btrfs: string;
  }) {
    this.folder = options.folder;
    const digest = createHash('sha256').update(options.folder).digest();
    this.node = `node_${base32(digest).slice(0, 32)}`;
    this.machine = options.machine;
    this.image = options.image;
    this.#open = options.open;
    this.#btrfs = options.btrfs;
  }

  static async create(): Promise<Scratch> {
    const { machine } = await detectContainers(signal());
    const found = await findBtrfsTools();
    if (machine === undefined || !found.found) throw new Error('not on this machine');
    const folder = await mkdtemp(join(tmpdir(), 'hypha-container-'));
    const image = await buildBusyboxImage({ folder: join(folder, 'layout'), tag: 'web' });
    const config = {
      type: 'image',
      file: join(folder, 'pool.img'),
      mountPoint: join(folder, 'pool'),
      sizeBytes: POOL_BYTES,
    } as const;
    const { tools } = found;
    const open = await openPool({ config, tools, role: 'owner', signal: signal() });
    return new Scratch({ folder, machine, image, open, btrfs: tools.btrfs });
  }

  /** A node with nothing on it. `nowMs` may be moved by the test. */
  async createNode(options: Partial<NodeOptions> = {}): Promise<ScratchNode> {
    const name = `node-${++this.#made}`;
    await this.#open.pool.createSubvolume(name, signal());
    const runFolder = join(options.runParent ?? this.folder, `${name}-run`);
    await mkdir(runFolder, { recursive: true });
    const group = createHash('sha256').update(`${this.folder}/${name}`).digest('hex').slice(0, 8);
    return new ScratchNode({
      node: this.node,
      machine: this.machine,
      image: this.image,
      root: this.#open.pool.resolve(name),
      btrfs: this.#btrfs,
      runFolder,
      group: `hypha-${group}`,
      discard: () => this.#open.pool.deleteSubvolume(name, signal()),
      plainRegistries: [],
      ...options,
    });
  }

  async close(): Promise<void> {
    await this.#open.close(signal());
    await rm(this.folder, { recursive: true });
  }
}

interface NodeOptions {
  readonly node: NodeId;
  readonly machine: ContainerMachine;
  readonly image: string;
  /** Root of its pool: a subvolume is as good as a file system. */
  readonly root: string;
  readonly btrfs: string;
  readonly runFolder: string;
  readonly runParent?: string;
  readonly group: string;
  readonly plainRegistries: readonly string[];
  discard(): Promise<void>;
}

/** One node of its own: pool, run folder, cgroups and names that nobody else has. */
export class ScratchNode implements ContractWorld {
  readonly #options: NodeOptions;
  /** Added to the clock the SAL sees. */
  laterMs = 0;

  constructor(options: NodeOptions) {
    this.#options = options;
  }

  get image(): string {
    return this.#options.image;
  }

  get runFolder(): string {
    return this.#options.runFolder;
  }

  get group(): string {
    return this.#options.group;
  }

  async open(effects: Effects): Promise<Sal> {
    const { machine } = this.#options;
    const host = await this.host(effects);
    const status = { state: 'real', driver: 'test' } as const;
    return createContainerSal({ ...host, machine, status, nowMs: () => host.nowMs() });
  }

  sal(): Promise<Sal> {
    return this.open(EFFECTS);
  }

  async containers(effects: Effects = EFFECTS): Promise<Containers> {
    return new Containers(await this.host(effects));
  }

  async host(effects: Effects = EFFECTS): Promise<ContainerHost> {
    const { machine, runFolder, group, plainRegistries } = this.#options;
    return {
      ...machine,
      node: this.#options.node,
      effects,
      runFolder,
      group,
      plainRegistries,
      pool: await this.#openPool(effects),
      findVolume: (rid) => this.#findVolume(rid),
      nowMs: () => Date.now() + this.laterMs,
    };
  }

  /** Declares a container as a committed run did. */
  async ensure(name: string, args: { readonly [key: string]: Json }, run = 'a'): Promise<Json> {
    return applyWhole(await this.sal(), this.call(name, args), { run });
  }

  call(name: string, args: { readonly [key: string]: Json }): ContractCall {
    return { verb: 'container.ensure', name, args: { image: this.image, ...args } };
  }

  async record(name: string, args: { readonly [key: string]: Json }): Promise<ResourceRecord> {
    return recordOf(await this.sal(), this.call(name, args));
  }

  async exec(name: string, command: readonly string[], options: Json = {}): Promise<Json> {
    const container = { $rid: contractRid('container', name), kind: 'container', name };
    const args = { container, command, ...(options as object) };
    return applyWhole(await this.sal(), { verb: 'container.exec', name, args });
  }

  /** Folder of a volume that containers can mount. */
  async volume(name: string): Promise<string> {
    const path = join(this.#options.root, 'volumes', contractRid('volume', name));
    await mkdir(path, { recursive: true });
    return path;
  }

  /** Once every container named `job` has ended: what it does meanwhile is no two times the same. */
  async capture(): Promise<Json> {
    const { runtime, store, host } = await this.containers();
    for (const job of await store.list(contractRid('container', 'job'))) {
      await vi.waitFor(
        async () => expect(await runtime.status(job, signal())).not.toHaveProperty('pid'),
        { timeout: 20_000 },
      );
    }
    return readTraces(host);
  }

  async close(): Promise<void> {
    const sal = await this.sal();
    const containers = await this.containers();
    for (const { rid } of await sal.resource.list(signal())) {
      await containers.dropAll(rid, signal());
    }
    await this.#options.discard();
    await rm(this.runFolder, { recursive: true, force: true });
  }

  async #findVolume(rid: string): Promise<string | undefined> {
    const path = join(this.#options.root, 'volumes', rid);
    return stat(path).then(
      () => path,
      () => undefined,
    );
  }

  /** Opening looks at the pool with commands of its own, which are not the adapter's effects. */
  async #openPool(effects: Effects): Promise<BtrfsPool> {
    const { root, btrfs } = this.#options;
    let now = EFFECTS;
    const opening: Effects = {
      run: (command) => now.run(command),
      change: (change) => now.change(change),
    };
    const options = { root, btrfs, backing: undefined, effects: opening };
    const pool = await BtrfsPool.open(options, signal());
    now = effects;
    return pool;
  }
}
