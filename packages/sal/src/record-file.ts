/**
 * One JSON record per file, replaced as a whole and on disk when the write resolves: a crash leaves the
 * old record or the new one. Readers need no lock.
 */
import { readFileSync } from 'node:fs';
import { mkdir, open, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { HyphaError, type Json } from '@hypha/protocol';
import type { z } from 'zod';

/** Undefined when there is no such file. Throws `E_SAL` when it is not a record of this schema. */
export async function findRecord<T>(path: string, schema: z.ZodType<T>): Promise<T | undefined> {
  const text = readSmallFile(path);
  if (text === undefined) return undefined;
  try {
    return schema.parse(JSON.parse(text));
  } catch (cause) {
    throw new HyphaError('E_SAL', `cannot read record ${path}`, {
      cause,
      hint: 'it was changed by something else: restore or remove it',
    });
  }
}

/** Makes the folders above. Writers of one file take turns; two at once would be a bug of the caller. */
export async function writeRecord(path: string, record: Json): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  const draft = `${path}.${process.pid}.draft`;
  await writeDraftRecord(draft, record);
  await rename(draft, path);
  await syncFolder(dirname(path));
}

/**
 * For a folder that is itself a draft and gets its name later: the content is on disk when this resolves,
 * the name is when the folder's is.
 */
export async function writeDraftRecord(path: string, record: Json): Promise<void> {
  const file = await open(path, 'w', 0o600);
  try {
    await file.writeFile(`${JSON.stringify(record)}\n`);
    await file.sync();
  } finally {
    await file.close();
  }
}

/** Absent is fine. */
export async function removeRecord(path: string): Promise<void> {
  await rm(path, { force: true });
  await syncFolder(dirname(path));
}

/** Puts the names in a folder on disk: without it a rename may be undone by a power loss. */
export async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r').catch(ignoreAbsent);
  if (folder === undefined) return;
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

/** At once: the way to another thread and back takes fifteen times as long as reading so little. */
function readSmallFile(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    return ignoreAbsent(error);
  }
}

function ignoreAbsent(error: unknown): undefined {
  if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
  throw error;
}
