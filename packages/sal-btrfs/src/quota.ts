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

/** `6.2` of `btrfs-progs v6.2`. */
export async function readProgsVersion(options: {
  btrfs: string;
  effects: Effects;
  signal: AbortSignal;
}): Promise<string> {
  const { btrfs, effects, signal } = options;
  const purpose = 'read the version of btrfs-progs';
  const { stdout } = await effects.run({ tool: btrfs, argv: ['--version'], purpose, signal });
  return /v(\d+\.\d+(?:\.\d+)?)/.exec(stdout)?.[1] ?? 'unknown';
}

export async function readKernelVersion(): Promise<string> {
  return (await readFile('/proc/sys/kernel/osrelease', 'utf8')).trim();
}

export function hasSimpleQuota(progsVersion: string, kernelVersion: string): boolean {
  return isSince(progsVersion) && isSince(kernelVersion);
}

function isSince(version: string): boolean {
  const [major = 0, minor = 0] = version.split('.').map((part) => Number.parseInt(part, 10) || 0);
  const { major: since, minor: sinceMinor } = SIMPLE_SINCE;
  return major > since || (major === since && minor >= sinceMinor);
}
