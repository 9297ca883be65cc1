import { chmod, mkdir, realpath } from 'node:fs/promises';
import { dirname } from 'node:path';
import { HyphaError } from '@hypha/protocol';
import { EFFECTS, type Effects } from '@hypha/sal';
import { z } from 'zod';
import { BtrfsPool } from './btrfs-pool.ts';
import type { BtrfsTools } from './btrfs-tools.ts';
import { ensurePoolImage } from './pool-image.ts';
import { ensurePoolMounted, isPoolMounted, type PoolMount, unmountPool } from './pool-mount.ts';
import { hasSimpleQuota, NO_QUOTA, openSimpleQuota, type Quota, readVersions } from './quota.ts';

const AbsolutePath = z
  .string()
  .max(1024)
  .regex(/^\/[^\0]*$/, 'an absolute path');

/** Where a node's pool is. A pool has one node: two would take each other's volumes for their own. */
export const PoolConfig = z.discriminatedUnion('type', [
  /** A subvolume of a file system that the machine has already. */
  z.strictObject({ type: z.literal('path'), path: AbsolutePath }),
  /** A sparse file, made when absent, on a loop device. */
  z.strictObject({
    type: z.literal('image'),
    file: AbsolutePath,
    mountPoint: AbsolutePath,
    sizeBytes: z.int().min(1),
  }),
]);
export type PoolConfig = z.infer<typeof PoolConfig>;

export interface OpenPool {
  readonly pool: BtrfsPool;
  readonly quota: Quota;
  /** `btrfs-progs 6.2, kernel 6.18.44, no quotas` */
  readonly driver: string;
  /**
   * The owner of an image unmounts it, and its loop device goes; throws `E_SAL` while something uses
   * it. For others there is nothing to close.
   */
  close(signal: AbortSignal): Promise<void>;
}

export interface OpenPoolOptions {
  readonly config: PoolConfig;
  readonly tools: BtrfsTools;
  /**
   * `owner`: makes and mounts what is not there, and unmounts. `guest`: uses what the owner, another
   * process of the node, has mounted; `E_UNAVAILABLE` when it has not.
   */
  readonly role: 'owner' | 'guest';
  readonly effects?: Effects;
  readonly signal: AbortSignal;
}

export async function openPool(options: OpenPoolOptions): Promise<OpenPool> {
  const { config, tools, role, signal } = options;
  const effects = options.effects ?? EFFECTS;
  const deps = { tools, effects, signal };
  if (config.type === 'image') {
    if (role === 'owner') await mountImage(config, deps);
    else await requireMounted(config);
  }
  const root = await realpath(config.type === 'path' ? config.path : config.mountPoint);
  const backing = config.type === 'path' ? undefined : dirname(await realpath(config.file));
  const pool = await BtrfsPool.open({ root, backing, btrfs: tools.btrfs, effects }, signal);
  // A user namespace's root must pass through to its files, and see nobody else's.
  if (role === 'owner' && config.type === 'image') await chmod(root, 0o711);
  const { progs, kernel } = await readVersions({ btrfs: tools.btrfs, effects, signal });
  // Quotas are a setting of the whole file system: only of one that is ours.
  const isLimited = config.type === 'image' && hasSimpleQuota(progs, kernel);
  const enable = role === 'owner';
  const quota = isLimited
    ? await openSimpleQuota({ pool, btrfs: tools.btrfs, effects, enable, signal })
    : NO_QUOTA;
  return {
    pool,
    quota,
    driver: `btrfs-progs ${progs}, kernel ${kernel}, ${isLimited ? 'simple quotas' : 'no quotas'}`,
    async close(closeSignal) {
      if (config.type === 'path' || role === 'guest') return;
      await unmountPool(config, { ...deps, signal: closeSignal });
    },
  };
}

async function mountImage(
  config: PoolMount & { readonly sizeBytes: number },
  deps: { tools: BtrfsTools; effects: Effects; signal: AbortSignal },
): Promise<void> {
  await mkdir(dirname(config.file), { recursive: true });
  await ensurePoolImage({ file: config.file, sizeBytes: config.sizeBytes, ...deps });
  await ensurePoolMounted(config, deps);
}

async function requireMounted(mount: PoolMount): Promise<void> {
  if (await isPoolMounted(mount)) return;
  throw new HyphaError('E_UNAVAILABLE', `the pool at ${mount.mountPoint} is not mounted`, {
    hint: "the node's supervisor mounts it: start it first",
  });
}
