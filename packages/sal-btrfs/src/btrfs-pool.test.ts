import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { EFFECTS } from '@hypha/sal';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { BtrfsPool } from './btrfs-pool.ts';
import { findLack, ScratchPool, signal } from './testing/scratch-pool.ts';

const lacking = await findLack();
const run = promisify(execFile);
let scratch: ScratchPool;
let pool: BtrfsPool;

beforeAll(async () => {
  if (lacking !== undefined) return;
  scratch = await ScratchPool.create();
  pool = await scratch.pool();
});

afterAll(() => scratch?.close());

beforeEach((context) => {
  if (lacking !== undefined) context.skip(lacking);
});

/** As a program inside a volume would. */
async function createInside(path: string): Promise<void> {
  await run(scratch.tools.btrfs, ['subvolume', 'create', path]);
}

async function paths(folder: string): Promise<readonly string[]> {
  return (await pool.list(folder, signal())).map(({ path }) => path).sort();
}

test('tells subvolumes from folders and from nothing', async () => {
  await pool.createSubvolume('kinds/one', signal());
  expect(await pool.isSubvolume('kinds/one')).toBe(true);
  expect(await pool.isSubvolume('kinds')).toBe(false);
  expect(await pool.isSubvolume('kinds/two')).toBe(false);
  expect(await pool.isSubvolume('kinds/one/below')).toBe(false);
});

test('never makes a snapshot inside a folder that has the name already', async () => {
  await pool.createSubvolume('trap/source', signal());
  await mkdir(pool.resolve('trap/taken'));
  const options = { readonly: true, signal: signal() };
  await expect(pool.snapshot('trap/source', 'trap/taken', options)).rejects.toMatchObject({
    code: 'E_CONFLICT',
  });
  expect(await readdir(pool.resolve('trap/taken'))).toEqual([]);
});

test('renames over nothing, not even an empty subvolume', async () => {
  await pool.createSubvolume('names/one', signal());
  await pool.createSubvolume('names/two', signal());
  await expect(pool.rename('names/one', 'names/two')).rejects.toMatchObject({
    code: 'E_CONFLICT',
  });
  await pool.rename('names/one', 'names/three');
  expect(await paths('names')).toEqual(['names/three', 'names/two']);
});

test('makes a snapshot read-only and writable again', async () => {
  await pool.createSubvolume('flags/source', signal());
  await pool.snapshot('flags/source', 'flags/copy', { readonly: true, signal: signal() });
  expect(await pool.isReadonly('flags/copy', signal())).toBe(true);
  await expect(writeFile(pool.resolve('flags/copy/file'), 'x')).rejects.toMatchObject({
    code: 'EROFS',
  });
  await pool.setReadonly('flags/copy', false, signal());
  await writeFile(pool.resolve('flags/copy/file'), 'x');
  const [copy] = (await pool.list('flags', signal())).filter(({ path }) => path.endsWith('copy'));
  const [source] = (await pool.list('flags', signal())).filter(({ path }) =>
    path.endsWith('source'),
  );
  expect(copy?.parentUuid).toBe(source?.uuid);
});

test('deletes a subvolume with everything nested, read-only parts too, and then nothing', async () => {
  await pool.createSubvolume('nested/top', signal());
  const top = pool.resolve('nested/top');
  await mkdir(join(top, 'deep'));
  await createInside(join(top, 'deep', 'one'));
  await createInside(join(top, 'deep', 'one', 'two'));
  await writeFile(join(top, 'deep', 'one', 'two', 'file'), 'x');
  await run(scratch.tools.btrfs, ['property', 'set', '-ts', join(top, 'deep/one'), 'ro', 'true']);
  await pool.createSubvolume('nested/topmost', signal());
  await pool.deleteSubvolume('nested/top', signal());
  await pool.deleteSubvolume('nested/top', signal());
  expect(await paths('nested')).toEqual(['nested/topmost']);
});

test('deletes nested subvolumes whose names forge the list, and nobody else’s', async () => {
  await pool.createSubvolume('forged/mine', signal());
  await pool.createSubvolume('forged/victim', signal());
  await writeFile(pool.resolve('forged/victim/precious'), 'x');
  const [victim] = (await pool.list('forged', signal())).filter(({ path }) =>
    path.endsWith('victim'),
  );
  const mine = pool.resolve('forged/mine');
  await symlink(pool.resolve('forged'), join(mine, 'link'));
  const line = `ID 99999 gen 1 parent ${victim?.id} top level 5 parent_uuid - uuid ${victim?.uuid} path forged/mine/link/victim`;
  await createInside(join(mine, `x\n${line.replaceAll('/', '\u2215')}`));
  await createInside(join(mine, 'plain'));
  await symlink(pool.resolve('forged/victim'), join(mine, 'y'));
  await pool.deleteSubvolume('forged/mine', signal());
  expect(await readFile(pool.resolve('forged/victim/precious'), 'utf8')).toBe('x');
  expect(await paths('forged')).toEqual(['forged/victim']);
});

test('refuses to delete a plain folder', async () => {
  await mkdir(pool.resolve('plain'));
  await expect(pool.deleteSubvolume('plain', signal())).rejects.toMatchObject({ code: 'E_SAL' });
});

test.for([
  '..',
  '../x',
  'a/../b',
  '/etc',
  'a//b',
  '',
  '.hidden',
  '-x',
  'a/-x',
  'a\0b',
  'a b',
  'ü',
  'a/',
])('takes no path like %j', (path) => {
  expect(() => pool.resolve(path)).toThrow(expect.objectContaining({ code: 'E_INTERNAL' }));
});

test('says that it is full with E_STORAGE, whoever finds out first', async () => {
  const { freeBytes } = await pool.usage();
  await pool.ensureRoom(1024);
  await expect(pool.ensureRoom(freeBytes)).rejects.toMatchObject({ code: 'E_STORAGE' });
  const full = await ScratchPool.create();
  try {
    const small = await full.pool();
    const block = Buffer.alloc(1024 * 1024, 1);
    const fill = async (): Promise<void> => {
      for (let index = 0; ; index++) await writeFile(small.resolve(`fill-${index}`), block);
    };
    await expect(fill()).rejects.toMatchObject({ code: 'ENOSPC' });
    await expect(small.ensureRoom(0)).rejects.toMatchObject({ code: 'E_STORAGE' });
  } finally {
    await full.close();
  }
});

test('two processes see the same pool', async () => {
  const guest = (await scratch.open('guest')).pool;
  await pool.createSubvolume('shared/one', signal());
  expect(await guest.isSubvolume('shared/one')).toBe(true);
});

test('is no pool on another file system', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'hypha-plain-'));
  const options = { root: folder, btrfs: scratch.tools.btrfs, backing: undefined };
  try {
    await expect(BtrfsPool.open({ ...options, effects: EFFECTS }, signal())).rejects.toMatchObject({
      code: 'E_SAL',
    });
  } finally {
    await rm(folder, { recursive: true });
  }
});
