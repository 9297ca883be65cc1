import { expect, test } from 'vitest';
import type { Migration } from './index.ts';
import {
  insertNote,
  NOTE_MIGRATIONS,
  noteIds,
  openNotes,
  temporaryFolder,
} from './testing/note-store.ts';

test('applies each migration once, in order, statements and code alike', async () => {
  await using folder = await temporaryFolder();
  {
    await using store = await openNotes(folder.path);
    await store.write([insertNote(store, 1)]);
  }
  let runs = 0;
  const coded: Migration = {
    name: '0002-mark',
    up: async (db) => {
      runs++;
      await db.schema.alterTable('notes').addColumn('mark', 'integer').execute();
    },
  };
  for (const _open of [1, 2]) {
    await using store = await openNotes(folder.path, { migrations: [...NOTE_MIGRATIONS, coded] });
    expect(await store.db.selectFrom('notes').selectAll().execute()).toEqual([
      { id: 1, text: 'note', mark: null },
    ]);
  }
  expect(runs).toBe(1);
});

test('leaves nothing of a migration that fails', async () => {
  await using folder = await temporaryFolder();
  await (await openNotes(folder.path)).close();
  const failing: Migration = {
    name: '0002-half',
    up: ['create table half (id integer primary key) strict', 'nonsense'],
  };
  await expect(
    openNotes(folder.path, { migrations: [...NOTE_MIGRATIONS, failing] }),
  ).rejects.toMatchObject({ code: 'E_INTERNAL', message: expect.stringContaining('0002-half') });
  const corrected: Migration = {
    ...failing,
    up: ['create table half (id integer primary key) strict'],
  };
  await using store = await openNotes(folder.path, { migrations: [...NOTE_MIGRATIONS, corrected] });
  expect(await noteIds(store)).toEqual([]);
});

test('refuses a file of a newer version', async () => {
  await using folder = await temporaryFolder();
  const newer: Migration = { name: '0002-newer', up: ['create table newer (id integer) strict'] };
  await (await openNotes(folder.path, { migrations: [...NOTE_MIGRATIONS, newer] })).close();
  await expect(openNotes(folder.path)).rejects.toMatchObject({
    code: 'E_INTERNAL',
    message: expect.stringContaining('0002-newer'),
  });
});
