import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Effects } from '@hypha/sal';
import type { BtrfsPool } from '../btrfs-pool.ts';
import { type BtrfsTools, findBtrfsTools } from '../btrfs-tools.ts';
import { type OpenPool, openPool, type PoolConfig } from '../open-pool.ts';
import { listLoopDevices } from '../pool-mount.ts';

const SCRATCH_BYTES = 320 * 1024 * 1024;
const SIGNAL_MS = 120_000;

/** What this machine lacks for btrfs on a loop file; undefined when it is all there. */
export async function findLack(): Promise<string | undefined> {
  const found = await findBtrfsTools();
  const systems = await readFile('/proc/filesystems', 'utf8').catch(() => '');
  const isReady = process.getuid?.() === 0 && found.found && /\bbtrfs\b/.test(systems);
  return isReady ? undefined : 'needs root, btrfs and loop devices';
}

export async function getTools(): Promise<BtrfsTools> {
  const found = await findBtrfsTools();
  if (!found.found) throw new Error(`not installed: ${found.missing.join(', ')}`);
  return found.tools;
}

/** A folder that holds a small pool image of its own, and nothing of it is left after `close`. */
export class ScratchPool {
  readonly folder: string;
  readonly config: Extract<PoolConfig, { type: 'image' }>;
  readonly tools: BtrfsTools;

  private constructor(folder: string, tools: BtrfsTools) {
    this.folder = folder;
    this.tools = tools;
    const [file, mountPoint] = [join(folder, 'pool.img'), join(folder, 'pool')];
    this.config = { type: 'image', file, mountPoint, sizeBytes: SCRATCH_BYTES };
  }

  static async create(): Promise<ScratchPool> {
    const folder = await mkdtemp(join(tmpdir(), 'hypha-btrfs-'));
    return new ScratchPool(folder, await getTools());
  }

  open(role: 'owner' | 'guest' = 'owner', effects?: Effects): Promise<OpenPool> {
    const { config, tools } = this;
    const extra = effects === undefined ? {} : { effects };
    return openPool({ config, tools, role, signal: signal(), ...extra });
  }

  /** The pool as a fresh process opens it. */
  async pool(): Promise<BtrfsPool> {
    return (await this.open()).pool;
  }

  loopDevices(): Promise<readonly string[]> {
    return listLoopDevices(this.config.file);
  }

  async close(): Promise<void> {
    try {
      await (await this.open()).close(signal());
    } finally {
      // Never recursive into a pool that is still mounted: its loop device would keep the file.
      if ((await this.loopDevices()).length === 0) await rm(this.folder, { recursive: true });
    }
  }
}

export function signal(): AbortSignal {
  return AbortSignal.timeout(SIGNAL_MS);
}
