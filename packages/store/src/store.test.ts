import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { sql } from 'kysely';
import { describe, expect, test } from 'vitest';
import { isStoreConflict, PreparedQuery } from './index.ts';
import { insertNote, noteIds, openNotes, temporaryFolder } from './testing/note-store.ts';

/** `PRAGMA synchronous`: 2 is FULL. SIGKILL alone could not tell it from less. */
const SYNCHRONOUS_FULL = 2;

describe('write', () => {
  test('is there after SIGKILL when it was acknowledged, and whole when it was not', async () => {
    await using folder = await temporaryFolder();
    const writer = fileURLToPath(new URL('./testing/note-writer.ts', import.meta.url));
    const child = spawn(process.execPath, [writer, folder.path], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const acknowledged: number[] = [];
    for await (const line of createInterface(child.stdout)) {
      acknowledged.push(Number(line));
      if (acknowledged.length === 500) child.kill('SIGKILL');
    }
    await using store = await openNotes(folder.path);
    const kept = new Set(await noteIds(store));
    expect(acknowledged.length).toBeGreaterThanOrEqual(500);
    expect(acknowledged.filter((id) => !kept.has(id))).toEqual([]);
    expect([...kept].filter((id) => !kept.has(id ^ 1))).toEqual([]);
  });

  test('shares one fsync among lists that are written at the same time', async () => {
    await using folder = await temporaryFolder();
    await using store = await openNotes(folder.path);
    const before = store.counts().commits;
    const ids = Array.from({ length: 1000 }, (_, id) => id);
    await Promise.all(ids.map((id) => store.write([insertNote(store, id)])));
    expect(store.counts().commits - before).toBeLessThan(100);
    expect(await noteIds(store)).toEqual(ids);
    expect(store.counts().pending).toBe(0);
  });

  test('shares it also when each waits for a read of its own in between', async () => {
    await using folder = await temporaryFolder();
    await using store = await openNotes(folder.path);
    const before = store.counts().commits;
    const writers = Array.from({ length: 32 }, async (_, writer) => {
      for (let round = 0; round < 10; round++) {
        const id = writer * 10 + round;
        await store.write([insertNote(store, id)]);
        const found = await store.db
          .selectFrom('notes')
          .select('id')
          .where('id', '=', id)
          .execute();
        expect(found).toEqual([{ id }]);
      }
    });
    await Promise.all(writers);
    expect(store.counts().commits - before).toBeLessThan(160);
  });

  test('commits by itself when it is alone', async () => {
    await using folder = await temporaryFolder();
    await using store = await openNotes(folder.path);
    const before = store.counts().commits;
    for (const id of [1, 2, 3]) await store.write([insertNote(store, id)]);
    expect(store.counts().commits - before).toBe(3);
  });

  test('undoes only its own list when a row count does not hold', async () => {
    await using folder = await temporaryFolder();
    await using store = await openNotes(folder.path);
    const rename = (id: number) => ({
      query: store.db.updateTable('notes').set({ text: 'renamed' }).where('id', '=', id),
      expectRows: 1,
    });
    const outcomes = await Promise.allSettled([
      store.write([insertNote(store, 1)]),
      store.write([insertNote(store, 2), rename(1), rename(99), insertNote(store, 3)]),
      store.write([insertNote(store, 4)]),
    ]);
    expect(outcomes.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled']);
    const refusal = outcomes[1]?.status === 'rejected' ? outcomes[1].reason : undefined;
    expect(isStoreConflict(refusal)).toBe(true);
    expect(refusal).toMatchObject({ code: 'E_CONFLICT', reason: 'rows', position: 2 });
    const notes = await store.db.selectFrom('notes').selectAll().orderBy('id').execute();
    expect(notes).toEqual([
      { id: 1, text: 'note' },
      { id: 4, text: 'note' },
    ]);
  });

  test('is a conflict when a key or a reference stands against it', async () => {
    await using folder = await temporaryFolder();
    await using store = await openNotes(folder.path);
    await store.write([insertNote(store, 1)]);
    await expect(store.write([insertNote(store, 2), insertNote(store, 1)])).rejects.toMatchObject({
      code: 'E_CONFLICT',
      reason: 'constraint',
      position: 1,
    });
    const orphan = { query: store.db.insertInto('replies').values({ id: 1, note: 7 }) };
    await expect(store.write([orphan])).rejects.toMatchObject({ reason: 'constraint' });
    expect(await noteIds(store)).toEqual([1]);
  });

  test('answers the rows of returning, and counts those it changed', async () => {
    await using folder = await temporaryFolder();
    await using store = await openNotes(folder.path);
    const values = [1, 2, 3].map((id) => ({ id, text: 'x' }));
    const [inserted, deleted] = await store.write([
      { query: store.db.insertInto('notes').values(values).returning('id') },
      { query: store.db.deleteFrom('notes').where('id', '>', 1) },
    ]);
    expect(inserted).toEqual({ rowsAffected: 3, rows: [{ id: 1 }, { id: 2 }, { id: 3 }] });
    expect(deleted).toEqual({ rowsAffected: 2, rows: [] });
  });

  test('fails with its own error on a statement that is wrong, and the store goes on', async () => {
    await using folder = await temporaryFolder();
    await using store = await openNotes(folder.path);
    const wrong = { query: store.db.insertInto('notes').values({ id: 1, text: {} as string }) };
    await expect(store.write([wrong])).rejects.toMatchObject({ code: 'E_INTERNAL' });
    const outcomes = await Promise.allSettled([
      store.write([insertNote(store, 2)]),
      store.write([{ query: { compile: () => ({ ...wrong.query.compile(), sql: 'nonsense' }) } }]),
    ]);
    expect(outcomes.map(({ status }) => status)).toEqual(['fulfilled', 'rejected']);
    expect(await noteIds(store)).toEqual([2]);
  });
});

describe('a read', () => {
  test('sees every write that was called before it, though none has resolved', async () => {
    await using folder = await temporaryFolder();
    await using store = await openNotes(folder.path);
    const reads: Promise<number[]>[] = [];
    const writes = [1, 2, 3].map((id) => {
      const write = store.write([insertNote(store, id)]);
      reads.push(noteIds(store));
      return write;
    });
    const seen = await Promise.all(reads);
    expect(seen.map((ids, index) => ids.slice(0, index + 1))).toEqual([[1], [1, 2], [1, 2, 3]]);
    await Promise.all(writes);
  });

  test('does not see a list that failed before it', async () => {
    await using folder = await temporaryFolder();
    await using store = await openNotes(folder.path);
    const failed = store.write([insertNote(store, 1), insertNote(store, 1)]);
    const seen = noteIds(store);
    await expect(failed).rejects.toMatchObject({ code: 'E_CONFLICT' });
    expect(await seen).toEqual([]);
  });

  test('is all that the query builder runs', async () => {
    await using folder = await temporaryFolder();
    await using store = await openNotes(folder.path);
    await expect(
      store.db.insertInto('notes').values({ id: 1, text: '' }).execute(),
    ).rejects.toThrow('store.write()');
    await expect(store.db.transaction().execute(async () => undefined)).rejects.toThrow(
      'no interactive transactions',
    );
    expect(await noteIds(store)).toEqual([]);
  });
});

describe('close', () => {
  test('lets writes that were called finish, refuses later ones, and leaves one file', async () => {
    await using folder = await temporaryFolder();
    const store = await openNotes(folder.path);
    const write = store.write([insertNote(store, 1)]);
    await Promise.all([store.close(), store.close()]);
    await write;
    await expect(store.write([insertNote(store, 2)])).rejects.toMatchObject({
      code: 'E_UNAVAILABLE',
    });
    await expect(noteIds(store)).rejects.toMatchObject({ code: 'E_UNAVAILABLE' });
    expect(await readdir(folder.path)).toEqual(['notes.db']);
    await using again = await openNotes(folder.path);
    expect(await noteIds(again)).toEqual([1]);
  });
});

describe('the file', () => {
  test('is synced by every commit', async () => {
    await using folder = await temporaryFolder();
    await using store = await openNotes(folder.path);
    const { rows } = await sql`select synchronous, journal_mode
      from pragma_synchronous, pragma_journal_mode`.execute(store.db);
    expect(rows).toEqual([{ synchronous: SYNCHRONOUS_FULL, journal_mode: 'wal' }]);
  });

  test('has one owner: another opener is told so', async () => {
    await using folder = await temporaryFolder();
    await using store = await openNotes(folder.path);
    await expect(openNotes(folder.path)).rejects.toMatchObject({
      code: 'E_UNAVAILABLE',
      message: `store ${join(folder.path, 'notes.db')} is owned by another process`,
    });
    await store.write([insertNote(store, 1)]);
    expect(await noteIds(store)).toEqual([1]);
  });

  test('is free again when its owner was killed', async () => {
    await using folder = await temporaryFolder();
    const writer = fileURLToPath(new URL('./testing/note-writer.ts', import.meta.url));
    const child = spawn(process.execPath, [writer, folder.path], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    // Its output ends before its locks do.
    const exited = once(child, 'exit');
    for await (const _line of createInterface(child.stdout)) {
      if (child.killed) continue;
      await expect(openNotes(folder.path)).rejects.toMatchObject({ code: 'E_UNAVAILABLE' });
      child.kill('SIGKILL');
    }
    await exited;
    await using store = await openNotes(folder.path);
    expect((await noteIds(store)).length).toBeGreaterThan(0);
  });
});

describe('sha256_concat', () => {
  test('is the digest of blobs one behind the other, and of nothing else', async () => {
    await using folder = await temporaryFolder();
    await using store = await openNotes(folder.path);
    const digest = async (expression: string) => {
      const query = sql<{ digest: Uint8Array }>`select ${sql.raw(expression)} as digest`;
      const { rows } = await query.execute(store.db);
      return Buffer.from(rows[0]?.digest ?? []).toString('hex');
    };
    const abc = 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad';
    expect(await digest("sha256_concat(x'61', x'6263')")).toBe(abc);
    expect(await digest("sha256_concat(x'', x'616263')")).toBe(abc);
    expect(await digest('sha256_concat()')).toMatch(/^e3b0c442/);
    for (const odd of ["'abc'", "x'6162', 'c'", "x'616263', null", '1'])
      await expect(digest(`sha256_concat(${odd})`)).rejects.toMatchObject({ code: 'E_INTERNAL' });
  });
});

test('reads do not wait for each other: many at once are one message', async () => {
  await using folder = await temporaryFolder();
  await using store = await openNotes(folder.path);
  await store.write([insertNote(store, 1)]);
  const write = store.write([insertNote(store, 2)]);
  const reads = Array.from({ length: 50 }, () => noteIds(store));
  // No answer can come before the event loop turns.
  for (let turn = 0; turn < 100 && store.counts().pending < 51; turn++) await null;
  expect(store.counts().pending).toBe(51);
  await write;
  expect(await Promise.all(reads)).toEqual(reads.map(() => [1, 2]));
});

describe('a prepared query', () => {
  test('is the same query with the values of each use', async () => {
    await using folder = await temporaryFolder();
    await using store = await openNotes(folder.path);
    const insert = new PreparedQuery<{ id: number; text: string }>((value) =>
      store.db
        .insertInto('notes')
        .values({ id: value('id'), text: value('text') })
        .onConflict((row) => row.column('id').doUpdateSet({ text: value('text') })),
    );
    const rename = new PreparedQuery<{ id: number }>((value) =>
      store.db.updateTable('notes').set({ text: 'fixed' }).where('id', '=', value('id')),
    );
    const write = (id: number, text: string) =>
      store.write([{ query: insert.with({ id, text }), expectRows: 1 }]);
    await Promise.all([write(1, 'a'), write(2, 'b'), write(3, 'c')]);
    await write(1, 'again');
    await store.write([{ query: rename.with({ id: 3 }), expectRows: 1 }]);
    expect(await store.db.selectFrom('notes').selectAll().orderBy('id').execute()).toEqual([
      { id: 1, text: 'again' },
      { id: 2, text: 'b' },
      { id: 3, text: 'fixed' },
    ]);
  });
});

test('what cannot be handed to the thread fails alone, not what is asked with it', async () => {
  await using folder = await temporaryFolder();
  await using store = await openNotes(folder.path);
  const outcomes = await Promise.allSettled([
    store.write([insertNote(store, 1)]),
    store.write([insertNote(store, 2, Symbol('no value') as unknown as string)]),
    store.write([insertNote(store, 3)]),
  ]);
  expect(outcomes.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled']);
  expect(outcomes[1]).toMatchObject({ reason: { code: 'E_INTERNAL' } });
  expect(await noteIds(store)).toEqual([1, 3]);
  expect(store.counts().pending).toBe(0);
});
