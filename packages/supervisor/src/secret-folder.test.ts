import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { openTempDir } from '@hypha/testkit';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { SecretFolder } from './secret-folder.ts';

const signal = AbortSignal.timeout(60_000);
const VALUE = new TextEncoder().encode('hush');

let temp: Awaited<ReturnType<typeof openTempDir>>;
let path: string;
let folder: SecretFolder;
beforeEach(async (context) => {
  if (process.getuid?.() !== 0) return context.skip('needs root');
  temp = await openTempDir();
  path = join(temp.path, 'run/secrets');
  folder = new SecretFolder(path);
});
afterEach(async () => {
  await folder?.remove(signal);
  await temp?.[Symbol.asyncDispose]();
});

async function mountOptions(): Promise<string[]> {
  const mounts = await readFile('/proc/self/mountinfo', 'utf8');
  const line = mounts.split('\n').find((mount) => mount.split(' ')[4] === path) ?? '';
  const [head = '', tail = ''] = line.split(' - ');
  return [...(head.split(' ')[5]?.split(',') ?? []), ...tail.split(' ')];
}

test('a value is a file on a tmpfs of its own, for root alone to reach and for anybody to read', async () => {
  const file = await folder.write('v1', VALUE, signal);
  expect(file).toBe(join(path, 'v1'));
  expect(await readFile(file, 'utf8')).toBe('hush');
  expect((await stat(file)).mode & 0o777).toBe(0o444);
  expect((await stat(path)).mode & 0o777).toBe(0o700);
  expect(await mountOptions()).toEqual(
    expect.arrayContaining(['nosuid', 'nodev', 'noexec', 'tmpfs']),
  );
});

test('a value is found again by another process, and once only mounted', async () => {
  await folder.write('v1', VALUE, signal);
  const again = new SecretFolder(path);
  expect(await again.find('v1')).toBe(join(path, 'v1'));
  expect(await again.find('v2')).toBeUndefined();
  await again.write('v2', VALUE, signal);
  expect(await folder.find('v1')).toBeDefined();
});

test('a value whose mount is gone is not there', async () => {
  await folder.write('v1', VALUE, signal);
  await folder.remove(signal);
  expect(await folder.find('v1')).toBeUndefined();
});

test('everything but what is named goes, drafts of a crash included', async () => {
  for (const version of ['v1', 'v2', 'v3.draft']) await folder.write(version, VALUE, signal);
  await folder.keepOnly(new Set(['v2']));
  expect(await readdir(path)).toEqual(['v2']);
});

test('removing leaves neither mount nor folder, and may be done twice', async () => {
  await folder.write('v1', VALUE, signal);
  await folder.remove(signal);
  await folder.remove(signal);
  expect(await mountOptions()).toEqual(['']);
  expect(await readdir(temp.path)).toEqual([]);
});
