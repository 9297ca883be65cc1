/** A small store for the tests of this package, in a folder that goes with the test. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Migration, openStore, type Store, type StoreOptions, type Write } from '../index.ts';

export interface NoteDb {
  notes: { id: number; text: string };
  replies: { id: number; note: number };
}

export const NOTE_MIGRATIONS: readonly Migration[] = [
  {
    name: '0001-notes',
    up: [
      'create table notes (id integer primary key, text text not null) strict',
      'create table replies (id integer primary key, note integer not null references notes (id)) strict',
    ],
  },
];

export async function temporaryFolder(): Promise<AsyncDisposable & { readonly path: string }> {
  const path = await mkdtemp(join(tmpdir(), 'hypha-store-'));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}

export function openNotes(
  folder: string,
  options: Partial<StoreOptions> = {},
): Promise<Store<NoteDb>> {
  return openStore<NoteDb>({
    file: join(folder, 'notes.db'),
    migrations: NOTE_MIGRATIONS,
    lockWaitMs: 100,
    ...options,
  });
}

export function insertNote(store: Store<NoteDb>, id: number, text = 'note'): Write {
  return { query: store.db.insertInto('notes').values({ id, text }), expectRows: 1 };
}

export async function noteIds(store: Store<NoteDb>): Promise<number[]> {
  const rows = await store.db.selectFrom('notes').select('id').orderBy('id').execute();
  return rows.map(({ id }) => id);
}
