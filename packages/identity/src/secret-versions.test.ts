import { stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { openTempDir } from '@hypha/testkit';
import { describe, expect, test } from 'vitest';
import { SecretVersions } from './secret-versions.ts';

const SECRET = { realm: 'default', deployment: 'web', name: 'token', value: 'hush' };

describe('the version of a secret', () => {
  test('is the same for the same value, also after a restart', async () => {
    await using folder = await openTempDir();
    const file = join(folder.path, 'versions.key');
    const version = (await SecretVersions.open(file)).versionOf(SECRET);
    expect(version).toMatch(/^[0-9a-f]{32}$/);
    expect((await SecretVersions.open(file)).versionOf(SECRET)).toBe(version);
    expect((await stat(file)).mode & 0o777).toBe(0o600);
  });

  test.for([
    ['another value', { value: 'hush!' }],
    ['another name', { name: 'other' }],
    ['another deployment', { deployment: 'api' }],
    ['another realm', { realm: 'lab' }],
    ['names that run into each other', { deployment: 'we', name: 'btoken' }],
  ] as const)('is another for %s', async ([, change]) => {
    await using folder = await openTempDir();
    const versions = await SecretVersions.open(join(folder.path, 'versions.key'));
    expect(versions.versionOf({ ...SECRET, ...change })).not.toBe(versions.versionOf(SECRET));
  });

  test('is another on every node', async () => {
    await using folder = await openTempDir();
    const [one, two] = await Promise.all(
      ['a', 'b'].map((name) => SecretVersions.open(join(folder.path, name))),
    );
    expect(one?.versionOf(SECRET)).not.toBe(two?.versionOf(SECRET));
  });

  test('is not made with a key that is none', async () => {
    await using folder = await openTempDir();
    const file = join(folder.path, 'versions.key');
    await writeFile(file, 'short', { mode: 0o600 });
    await expect(SecretVersions.open(file)).rejects.toThrow(TypeError);
  });
});
