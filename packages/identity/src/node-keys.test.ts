import { createPrivateKey } from 'node:crypto';
import { chmod, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { isSoundPublicKey, nodeIdOf } from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import { openTempDir } from '@hypha/testkit';
import { describe, expect, test } from 'vitest';
import { openNodeKeys } from './node-keys.ts';

const modeOf = async (path: string) => (await stat(path)).mode & 0o777;

describe('node keys', () => {
  test('are made at the first boot and kept', async () => {
    await using folder = await openTempDir();
    const keys = join(folder.path, 'keys');
    const first = await openNodeKeys(keys, Date.now);
    const again = await openNodeKeys(keys, Date.now);
    expect(again.nodeId).toBe(first.nodeId);
    expect(again.sealKeys.current).toEqual(first.sealKeys.current);
    expect(isSoundPublicKey(first.signer.publicKey)).toBe(true);
    expect(first.nodeId).toBe(nodeIdOf(nodeVerifier, first.signer.publicKey));
    expect(first.sealKeys.current).toHaveLength(32);
    expect(first.sealKeys.current).not.toEqual(first.signer.publicKey);
  });

  test('are PKCS#8 PEM that only their owner can read, in a folder only their owner can enter', async () => {
    await using folder = await openTempDir();
    const keys = join(folder.path, 'keys');
    await openNodeKeys(keys, Date.now);
    expect((await readdir(keys)).sort()).toEqual(['identity.pem', 'seal.pem', 'versions.key']);
    for (const [name, type] of [
      ['identity.pem', 'ed25519'],
      ['seal.pem', 'x25519'],
    ] as const) {
      expect(await modeOf(join(keys, name))).toBe(0o600);
      expect(createPrivateKey(await readFile(join(keys, name))).asymmetricKeyType).toBe(type);
    }
    expect(await modeOf(join(keys, 'versions.key'))).toBe(0o600);
    expect(await modeOf(keys)).toBe(0o700);
  });

  test('that others may read are refused, and left as they are', async () => {
    await using folder = await openTempDir();
    await openNodeKeys(folder.path, Date.now);
    for (const name of ['identity.pem', 'seal.pem']) {
      const path = join(folder.path, name);
      await chmod(path, 0o640);
      await expect(openNodeKeys(folder.path, Date.now)).rejects.toMatchObject({
        name: 'OpenFileError',
        message: expect.stringContaining('0640'),
        hint: expect.stringContaining(`chmod 600 ${path}`),
      });
      expect(await modeOf(path)).toBe(0o640);
      await chmod(path, 0o600);
    }
  });

  test('are finished after a crash between the two', async () => {
    await using folder = await openTempDir();
    const first = await openNodeKeys(folder.path, Date.now);
    // As it is when only the sealing key got to disk, with the draft of the other cut short.
    await rm(join(folder.path, 'identity.pem'));
    await writeFile(join(folder.path, 'identity.pem.draft'), '-----BEGIN PRIV', { mode: 0o644 });
    const finished = await openNodeKeys(folder.path, Date.now);
    expect(finished.sealKeys.current).toEqual(first.sealKeys.current);
    expect((await openNodeKeys(folder.path, Date.now)).nodeId).toBe(finished.nodeId);
    expect(await modeOf(join(folder.path, 'identity.pem'))).toBe(0o600);
    expect(await readdir(folder.path)).not.toContain('identity.pem.draft');
  });

  test('are not silently replaced when the sealing key is lost', async () => {
    await using folder = await openTempDir();
    await openNodeKeys(folder.path, Date.now);
    await rm(join(folder.path, 'seal.pem'));
    await expect(openNodeKeys(folder.path, Date.now)).rejects.toMatchObject({ code: 'E_CONFLICT' });
  });

  test.for([
    ['identity.pem', 'garbage'],
    ['identity.pem', ''],
    ['seal.pem', 'garbage'],
    ['versions.key', 'garbage'],
  ] as const)('are not silently replaced when %s holds %j', async ([name, text]) => {
    await using folder = await openTempDir();
    await openNodeKeys(folder.path, Date.now);
    await writeFile(join(folder.path, name), text);
    await expect(openNodeKeys(folder.path, Date.now)).rejects.toMatchObject({ code: 'E_CONFLICT' });
    expect(await readFile(join(folder.path, name), 'utf8')).toBe(text);
  });

  test('of one use are refused for the other', async () => {
    await using folder = await openTempDir();
    await openNodeKeys(folder.path, Date.now);
    const seal = await readFile(join(folder.path, 'seal.pem'));
    await writeFile(join(folder.path, 'identity.pem'), seal);
    await expect(openNodeKeys(folder.path, Date.now)).rejects.toMatchObject({ code: 'E_CONFLICT' });
  });
});
