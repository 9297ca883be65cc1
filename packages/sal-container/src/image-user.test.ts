import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isHyphaError } from '@hypha/protocol';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { numericUser, resolveImageUser } from './image-user.ts';

let root: string;

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'hypha-user-'));
  await mkdir(join(root, 'etc'));
  await writeFile(join(root, 'etc/passwd'), 'root:x:0:0::/:\nweb:x:33:34::/:\n');
  await writeFile(join(root, 'etc/group'), 'root:x:0:\nwww:x:34:\nlog:x:4:other,web\n');
});

afterEach(() => rm(root, { recursive: true }));

test.each([
  ['', { uid: 0, gid: 0, additionalGids: [] }],
  ['root', { uid: 0, gid: 0, additionalGids: [] }],
  ['web', { uid: 33, gid: 34, additionalGids: [4] }],
  ['33', { uid: 33, gid: 34, additionalGids: [4] }],
  ['web:log', { uid: 33, gid: 4, additionalGids: [] }],
  ['web:7', { uid: 33, gid: 7, additionalGids: [] }],
  ['1000', { uid: 1000, gid: 0, additionalGids: [] }],
  ['1000:1001', { uid: 1000, gid: 1001, additionalGids: [] }],
])('user %j of an image', async (user, numbers) => {
  expect(await resolveImageUser(root, user)).toEqual(numbers);
});

test.each(['nobody', 'web:nobodies', '-1', '1e3', 'web '])('%j is nobody', async (user) => {
  const error = await resolveImageUser(root, user).catch((cause: unknown) => cause);
  expect(isHyphaError(error, 'E_IMAGE')).toBe(true);
});

test('follows no link out of the image', async () => {
  await rm(join(root, 'etc/passwd'));
  await symlink('/etc/passwd', join(root, 'etc/passwd'));
  await expect(resolveImageUser(root, 'daemon')).rejects.toThrow('no entry');
  await rm(join(root, 'etc'), { recursive: true });
  await symlink('/etc', join(root, 'etc'));
  await expect(resolveImageUser(root, 'daemon')).rejects.toThrow('no entry');
  expect(await resolveImageUser(root, '')).toMatchObject({ uid: 0 });
});

test('numbers of a spec', () => {
  expect(numericUser('7')).toEqual({ uid: 7, gid: 0, additionalGids: [] });
  expect(numericUser('7:8')).toEqual({ uid: 7, gid: 8, additionalGids: [] });
});
