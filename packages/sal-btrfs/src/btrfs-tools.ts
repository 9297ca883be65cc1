import { findTool } from '@hypha/sal';

/** Absolute paths of what the adapter runs. */
export interface BtrfsTools {
  readonly btrfs: string;
  readonly mkfs: string;
  readonly mount: string;
  readonly umount: string;
  readonly losetup: string;
  readonly cp: string;
}

const NAMES: Readonly<Record<keyof BtrfsTools, string>> = {
  btrfs: 'btrfs',
  mkfs: 'mkfs.btrfs',
  mount: 'mount',
  umount: 'umount',
  losetup: 'losetup',
  cp: 'cp',
};

/** The tools, or the names of those that are not installed. */
export async function findBtrfsTools(): Promise<
  { found: true; tools: BtrfsTools } | { found: false; missing: readonly string[] }
> {
  const tools: Partial<Record<keyof BtrfsTools, string>> = {};
  const missing: string[] = [];
  for (const [key, name] of Object.entries(NAMES)) {
    const path = await findTool(name);
    if (path === undefined) missing.push(name);
    // The keys of a table typed by them.
    else tools[key as keyof BtrfsTools] = path;
  }
  if (missing.length > 0) return { found: false, missing };
  // Nothing is missing, so every key is there.
  return { found: true, tools: tools as BtrfsTools };
}
