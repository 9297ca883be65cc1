import { execFileSync, fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, open, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import type { HyphaError } from '@hypha/protocol';
import { expect, test } from 'vitest';
import { insertNote, noteIds, openNotes, temporaryFolder } from './testing/note-store.ts';

const PAGE_BYTES = 4096;

/** More pages than SQLite keeps in memory, all checkpointed into the file. */
async function fillNotes(folder: string): Promise<void> {
  await using store = await openNotes(folder);
  const page = 'x'.repeat(PAGE_BYTES);
  await store.write(Array.from({ length: 2000 }, (_, id) => insertNote(store, id, page)));
}

async function overwriteWithGarbage(folder: string): Promise<void> {
  await using file = await open(join(folder, 'notes.db'), 'r+');
  const { size } = await file.stat();
  // Behind the header and the schema, which are in memory already.
  await file.write(
    Buffer.alloc(size - 3 * PAGE_BYTES, 0xee),
    0,
    size - 3 * PAGE_BYTES,
    3 * PAGE_BYTES,
  );
}

test('a full disk fails the list that does not fit, and the store goes on', async (context) => {
  if (process.getuid?.() !== 0) context.skip('needs root to mount a small file system');
  await using folder = await temporaryFolder();
  const disk = join(folder.path, 'disk');
  await mkdir(disk);
  execFileSync('/bin/mount', ['-t', 'tmpfs', '-o', 'size=2m', 'tmpfs', disk]);
  try {
    await using store = await openNotes(disk);
    await writeFile(join(disk, 'ballast'), Buffer.alloc(1024 * 1024));
    const outcomes = await Promise.allSettled([
      store.write([insertNote(store, 1)]),
      store.write([insertNote(store, 2, 'x'.repeat(4 * 1024 * 1024))]),
      store.write([insertNote(store, 3)]),
    ]);
    expect(outcomes.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled']);
    expect(outcomes[1]).toMatchObject({ reason: { code: 'E_STORAGE' } });
    expect(await noteIds(store)).toEqual([1, 3]);
    await rm(join(disk, 'ballast'));
    await store.write([insertNote(store, 4, 'x'.repeat(300 * 1024))]);
    expect(await noteIds(store)).toEqual([1, 3, 4]);
  } finally {
    execFileSync('/bin/umount', ['--lazy', disk]);
  }
});

test('a broken database fails every pending call and all later ones, and is told once', async () => {
  await using folder = await temporaryFolder();
  await fillNotes(folder.path);
  const told: HyphaError[] = [];
  const store = await openNotes(folder.path, { onBroken: (error) => told.push(error) });
  await overwriteWithGarbage(folder.path);
  const outcomes = await Promise.allSettled([
    noteIds(store),
    store.write([insertNote(store, 5000)]),
    noteIds(store),
  ]);
  expect(outcomes.map(({ status }) => status)).toEqual(['rejected', 'rejected', 'rejected']);
  await expect(noteIds(store)).rejects.toMatchObject({ code: 'E_INTERNAL' });
  expect(told).toHaveLength(1);
  await store.close();
});

test('a broken database ends a process that says nothing about it', async () => {
  await using folder = await temporaryFolder();
  await fillNotes(folder.path);
  const reader = fileURLToPath(new URL('./testing/broken-reader.ts', import.meta.url));
  const child = fork(reader, [folder.path], { stdio: ['ignore', 'ignore', 'pipe', 'ipc'] });
  const exited = once(child, 'exit');
  const stderr = child.stderr === null ? '' : text(child.stderr);
  await once(child, 'message');
  await overwriteWithGarbage(folder.path);
  child.send('read');
  expect(await exited).toEqual([1, null]);
  expect(await stderr).toContain('broke down');
});
