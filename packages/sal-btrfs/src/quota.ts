/**
 * Limits per volume. Full quota groups stop being enforced where snapshots come and go, so only simple
 * quotas are used: btrfs-progs and kernel 6.7 or newer, and only in an image of our own, for they are a
 * setting of the whole file system. Source: SAL notes §2.4.
 */
import { readFile } from 'node:fs/promises';
import type { Effects, SubvolumePool } from '@hypha/sal';
import { withStorageErrors } from './storage-error.ts';

const SIMPLE_SINCE = { major: 6, minor: 7 } as const;

export interface Quota {
  readonly mode: 'none' | 'simple';
  setLimit(path: string, sizeBytes: number, signal: AbortSignal): Promise<void>;
}

export const NO_QUOTA: Quota = { mode: 'none', setLimit: async () => {} };

/** Limits by simple quota; the owner of the pool turns it on. */
export async function openSimpleQuota(options: {
  pool: SubvolumePool;
  btrfs: string;
  effects: Effects;
  enable: boolean;
  signal: AbortSignal;
}): Promise<Quota> {
  const { pool, btrfs, effects, enable, signal } = options;
  if (enable) {
    await effects.run({
      tool: btrfs,
      argv: ['quota', 'enable', '--simple', pool.root],
      purpose: `turn on simple quotas at ${pool.root}`,
      signal,
    });
  }
  return {
    mode: 'simple',
    async setLimit(path, sizeBytes, limitSignal) {
      const purpose = `limit ${path} to ${sizeBytes} bytes`;
      const argv = ['qgroup', 'limit', String(sizeBytes), pool.resolve(path)];
      await withStorageErrors(purpose, () =>
        effects.run({ tool: btrfs, argv, purpose, signal: limitSignal }),
      );
    },
  };
}

/** What a pool of this machine would be: `btrfs-progs 6.2, kernel 6.18.44, no quotas`. */
export async function describeDriver(deps: {
  btrfs: string;
  effects: Effects;
  signal: AbortSignal;
}): Promise<string> {
  const { progs, kernel } = await readVersions(deps);
  const quotas = hasSimpleQuota(progs, kernel) ? 'simple quotas' : 'no quotas';
  return `btrfs-progs ${progs}, kernel ${kernel}, ${quotas}`;
}

export async function readVersions(deps: {
  btrfs: string;
  effects: Effects;
  signal: AbortSignal;
}): Promise<{ progs: string; kernel: string }> {
  const { btrfs, effects, signal } = deps;
  const purpose = 'read the version of btrfs-progs';
  const { stdout } = await effects.run({ tool: btrfs, argv: ['--version'], purpose, signal });
  const progs = /v(\d+\.\d+(?:\.\d+)?)/.exec(stdout)?.[1] ?? 'of unknown version';
  const kernel = (await readFile('/proc/sys/kernel/osrelease', 'utf8')).trim();
  return { progs, kernel };
}

export function hasSimpleQuota(progs: string, kernel: string): boolean {
  return isSince(progs) && isSince(kernel);
}

function isSince(version: string): boolean {
  const [major = 0, minor = 0] = version.split('.').map((part) => Number.parseInt(part, 10) || 0);
  const { major: since, minor: sinceMinor } = SIMPLE_SINCE;
  return major > since || (major === since && minor >= sinceMinor);
}
