import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { z } from 'zod';
import { findRecord, removeRecord, writeRecord } from './record-file.ts';

const Counter = z.strictObject({ count: z.int() });
let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'hypha-record-'));
});

afterEach(() => rm(folder, { recursive: true }));

test('a record is there once written, as the last writer left it, and nothing beside it', async () => {
  const file = join(folder, 'deep', 'a.json');
  expect(await findRecord(file, Counter)).toBeUndefined();
  await writeRecord(file, { count: 1 });
  await writeRecord(file, { count: 2 });
  expect(await findRecord(file, Counter)).toEqual({ count: 2 });
  expect(await readdir(join(folder, 'deep'))).toEqual(['a.json']);
});

test('a reader beside a writer sees one record or the other, never a part', async () => {
  const file = join(folder, 'a.json');
  await writeRecord(file, { count: 0 });
  const writing = (async () => {
    for (let count = 1; count <= 50; count++) await writeRecord(file, { count });
  })();
  let last = 0;
  while (last < 50) {
    const { count = -1 } = (await findRecord(file, Counter)) ?? {};
    expect(count).toBeGreaterThanOrEqual(last);
    last = count;
    // Reading does not wait for anything: the writer gets its turn here.
    await setImmediate();
  }
  await writing;
});

test('a removed record is gone, and removed again without harm', async () => {
  const file = join(folder, 'a.json');
  await writeRecord(file, { count: 1 });
  await removeRecord(file);
  await removeRecord(file);
  expect(await findRecord(file, Counter)).toBeUndefined();
});

test.for(['{"count":', '{"count":"x"}', '{"count":1,"more":2}', ''])(
  'what is no record is refused by its path: %s',
  async (text) => {
    const file = join(folder, 'a.json');
    await writeFile(file, text);
    await expect(findRecord(file, Counter)).rejects.toMatchObject({
      code: 'E_SAL',
      message: `cannot read record ${file}`,
    });
  },
);
