import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { base32, type NodeId } from '@hypha/protocol';
import { findBtrfsTools, type OpenPool, openPool } from '@hypha/sal-btrfs';
import { type ContainerMachine, detectContainers } from '../runtime-detection.ts';
import { buildBusyboxImage, findImageLack } from './busybox-image.ts';
import { type NodeOptions, ScratchNode, signal } from './scratch-node.ts';

const POOL_BYTES = 512 * 1024 * 1024;
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
