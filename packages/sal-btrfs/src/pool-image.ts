/**
 * A pool in a sparse file. `mkfs` runs on a draft that this code created a moment ago, which gets its
 * name only when it is whole: a file that has the name is ours and complete, or it is refused.
 */
import { open, rename, rm, statfs } from 'node:fs/promises';
import { dirname } from 'node:path';
import { HyphaError } from '@hypha/protocol';
import { type Effects, syncFolder } from '@hypha/sal';
import type { BtrfsTools } from './btrfs-tools.ts';
import { codeOf } from './storage-error.ts';

const POOL_LABEL = 'hypha-pool';
/** First superblock: at 64 KiB; magic and label within. Source: btrfs on-disk format. */
const SUPERBLOCK = { offset: 65_536, magicAt: 0x40, labelAt: 0x12b, labelBytes: 256 } as const;
const MAGIC = '_BHRfS_M';

/** Less makes no usable btrfs with metadata kept twice. */
export const POOL_BYTES_MIN = 256 * 1024 * 1024;

/** Has the image. Idempotent; throws `E_SAL` when the file is something else, `E_STORAGE` without room. */
export async function ensurePoolImage(options: {
  file: string;
  sizeBytes: number;
  tools: BtrfsTools;
  effects: Effects;
  signal: AbortSignal;
}): Promise<void> {
  const { file, sizeBytes, tools, effects, signal } = options;
  const label = await readLabel(file);
  if (label === POOL_LABEL) return;
  if (label !== undefined) {
    throw new HyphaError('E_SAL', `${file} exists and is not a pool made by hypha`, {
      hint: 'move it away or choose another state folder; it was not touched',
    });
  }
  if (sizeBytes < POOL_BYTES_MIN) {
    throw new HyphaError('E_ARGUMENT', `a pool of ${sizeBytes} bytes is too small`, {
      hint: `use at least ${POOL_BYTES_MIN} bytes`,
    });
  }
  const under = await statfs(dirname(file));
  if (under.bavail * under.bsize < sizeBytes) {
    throw new HyphaError('E_STORAGE', `no room for a pool of ${sizeBytes} bytes at ${file}`, {
      details: { freeBytes: under.bavail * under.bsize },
    });
  }
  const draft = `${file}.draft`;
  await effects.change(() => createSparse(draft, sizeBytes));
  await effects.run({
    tool: tools.mkfs,
    argv: ['--quiet', '--label', POOL_LABEL, draft],
    purpose: `make a file system in ${draft}`,
    signal,
  });
  await effects.change(async () => {
    await syncFile(draft);
    await rename(draft, file);
    await syncFolder(dirname(file));
  });
}

/** The file system's label; `''` for a file that is no btrfs; undefined for no file. */
async function readLabel(file: string): Promise<string | undefined> {
  const handle = await open(file, 'r').catch((error: unknown) => {
    if (codeOf(error) === 'ENOENT') return undefined;
    throw error;
  });
  if (handle === undefined) return undefined;
  try {
    const { offset, magicAt, labelAt, labelBytes } = SUPERBLOCK;
    const block = Buffer.alloc(4096);
    await handle.read(block, 0, block.length, offset);
    const magic = block.toString('latin1', magicAt, magicAt + MAGIC.length);
    if (magic !== MAGIC) return '';
    return block.toString('utf8', labelAt, labelAt + labelBytes).split('\0')[0];
  } finally {
    await handle.close();
  }
}

async function createSparse(file: string, sizeBytes: number): Promise<void> {
  await rm(file, { force: true });
  const handle = await open(file, 'wx', 0o600);
  try {
    await handle.truncate(sizeBytes);
  } finally {
    await handle.close();
  }
}

async function syncFile(file: string): Promise<void> {
  const handle = await open(file, 'r+');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
