/** A tmpfs for what must never be on a disk. */
import { release } from 'node:os';
import { commandFailure } from './command.ts';
import type { Effects } from './effects.ts';

/** `f_type` of statfs(2). */
export const TMPFS_MAGIC = 0x01021994;

/** Linux 6.4 can keep a tmpfs out of swap. */
const NOSWAP_SINCE = [6, 4] as const;

/**
 * Mounts one, for root alone, bounded, and out of swap where the kernel knows how. Not idempotent: look first
 * whether it is there.
 * @param options.flags mount options besides
 */
export async function mountTmpfs(
  effects: Effects,
  path: string,
  options: {
    /** Absolute path of `mount`. */
    readonly mount: string;
    readonly bytesMax: number;
    readonly flags: readonly string[];
    readonly purpose: string;
    readonly signal: AbortSignal;
  },
): Promise<void> {
  const { mount, bytesMax, flags, purpose, signal } = options;
  const mountWith = (more: readonly string[]) => {
    const all = [...flags, 'mode=0700', `size=${bytesMax}`, ...more].join(',');
    const argv = ['-t', 'tmpfs', '-o', all, '--', 'hypha', path];
    return effects.run({ tool: mount, argv, purpose, signal });
  };
  if (!knowsNoswap(release())) {
    await mountWith([]);
    return;
  }
  try {
    await mountWith(['noswap']);
  } catch (error) {
    // In a user namespace that option is refused.
    if (commandFailure(error) === undefined) throw error;
    await mountWith([]);
  }
}

function knowsNoswap(kernel: string): boolean {
  const [, major = '0', minor = '0'] = /^(\d+)\.(\d+)/.exec(kernel) ?? [];
  const [sinceMajor, sinceMinor] = NOSWAP_SINCE;
  return (
    Number(major) > sinceMajor || (Number(major) === sinceMajor && Number(minor) >= sinceMinor)
  );
}
