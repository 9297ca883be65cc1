/**
 * Files for their owner alone, replaced as a whole and on disk when the write resolves. A crash leaves
 * the file as it was before or as it is after.
 */
import { closeSync, fstatSync, openSync, readFileSync } from 'node:fs';
import { mkdir, open, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { HyphaError } from '../hypha-error.ts';

const OTHERS = 0o077;

/**
 * A file that not only its owner may use: a key in it may be known to others, or be another's. A process
 * that needs it ends with 78 (EX_CONFIG); closing it silently would hide that.
 */
export class OpenFileError extends HyphaError {
  constructor(path: string, mode: number) {
    const octal = (mode & 0o777).toString(8).padStart(4, '0');
    super('E_FORBIDDEN', `refusing ${path}: its mode ${octal} lets others use it`, {
      where: { path },
      hint: `if nobody has: chmod 600 ${path}; else make a new one`,
    });
    this.name = 'OpenFileError';
  }
}

/**
 * The text of a file; its mode is asked of the open file, so that it is that file's.
 * @throws OpenFileError when others than its owner may use it; whatever `open` throws when it is not there
 */
export function readPrivateFile(path: string): string {
  const fd = openSync(path, 'r');
  try {
    const { mode } = fstatSync(fd);
    if ((mode & OTHERS) !== 0) throw new OpenFileError(path, mode);
    return readFileSync(fd, 'utf8');
  } finally {
    closeSync(fd);
  }
}

/** As `readPrivateFile`; undefined when there is no such file. */
export async function findPrivateFile(path: string): Promise<string | undefined> {
  try {
    return readPrivateFile(path);
  } catch (error) {
    if (isAbsent(error)) return undefined;
    throw error;
  }
}

/** Makes the folder above, 0700. Writers of one file take turns. */
export async function writePrivateFile(path: string, text: string): Promise<void> {
  const folder = dirname(path);
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const draft = `${path}.draft`;
  // A draft of a process that died may have been made with another mode.
  await rm(draft, { force: true });
  const file = await open(draft, 'wx', 0o600);
  try {
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(draft, path);
  await syncFolder(folder);
}

/** Puts the names in a folder on disk: without it a power loss may undo a rename. */
export async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

export function isAbsent(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'ENOENT';
}
