import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { sealSecrets } from '@hypha/protocol';
import { openTempDir } from '@hypha/testkit';
import { describe, expect, test } from 'vitest';
import { openNodeKeys } from './node-keys.ts';

const random = (count: number) => crypto.getRandomValues(new Uint8Array(count));

async function setUp(folder: string) {
  const open = async () => (await openNodeKeys(folder, () => clock.nowMs)).sealKeys;
  const clock = { nowMs: 1000 };
  const { nodeId: node } = await openNodeKeys(folder, () => clock.nowMs);
  const context = { realm: 'default', node, id: 'rev_0193a000-0000-7000-8000-000000000000' };
  const seal = (sealKey: Uint8Array) =>
    sealSecrets({ token: 'hush' }, { context, sealKey, randomBytes: random });
  return { open, clock, context, seal, file: join(folder, 'seal.pem') };
}

describe('sealing keys', () => {
  test('open what was sealed to the current key, also after a restart', async () => {
    await using folder = await openTempDir();
    const { open, seal, context } = await setUp(folder.path);
    const box = seal((await open()).current);
    expect((await open()).open(box, context)).toEqual({ token: 'hush' });
  });

  test('open both, after a rotation, until the previous key is destroyed', async () => {
    await using folder = await openTempDir();
    const { open, seal, context } = await setUp(folder.path);
    const keys = await open();
    const before = keys.current;
    const own = keys.sealOwn(new TextEncoder().encode('mine'));
    await keys.rotateSealKey();
    expect(keys.current).not.toEqual(before);
    for (const each of [keys, await open()]) {
      expect(each.previous).toEqual(before);
      for (const key of [before, each.current]) {
        expect(each.open(seal(key), context)).toEqual({ token: 'hush' });
      }
      expect(Buffer.from(each.openOwn(own)).toString()).toBe('mine');
    }
    await keys.destroyPrevious();
    for (const each of [keys, await open()]) {
      expect(each.previous).toBeUndefined();
      expect(() => each.open(seal(before), context)).toThrow(/not sealed to this node/);
      expect(() => each.openOwn(own)).toThrow(/not sealed to this node/);
      expect(each.open(seal(each.current), context)).toEqual({ token: 'hush' });
    }
  });

  test('are not rotated while boxes for the key before may still come', async () => {
    await using folder = await openTempDir();
    const { open } = await setUp(folder.path);
    const keys = await open();
    await keys.rotateSealKey();
    const { current } = keys;
    await expect(keys.rotateSealKey()).rejects.toMatchObject({ code: 'E_CONFLICT' });
    expect(keys.current).toBe(current);
  });

  test('say since when they are current, and when the ledger knew', async () => {
    await using folder = await openTempDir();
    const { open, clock } = await setUp(folder.path);
    const keys = await open();
    expect(keys).toMatchObject({ madeAtMs: 1000, publishedAtMs: null });
    clock.nowMs = 2000;
    await keys.notePublished(keys.current);
    clock.nowMs = 3000;
    await keys.notePublished(keys.current);
    expect(await open()).toMatchObject({ madeAtMs: 1000, publishedAtMs: 2000 });
    await keys.rotateSealKey();
    expect(await open()).toMatchObject({ madeAtMs: 3000, publishedAtMs: null });
  });

  test('take no word about the key before for one about the current', async () => {
    await using folder = await openTempDir();
    const { open } = await setUp(folder.path);
    const keys = await open();
    const before = keys.current;
    await keys.rotateSealKey();
    await keys.notePublished(before);
    expect(keys.publishedAtMs).toBeNull();
  });

  test('of a file that does not say since when count from now', async () => {
    await using folder = await openTempDir();
    const { open, file, clock } = await setUp(folder.path);
    const { current } = await open();
    const text = await readFile(file, 'utf8');
    await writeFile(file, text.slice(text.indexOf('-----BEGIN')));
    clock.nowMs = 5000;
    expect(await open()).toMatchObject({ current, madeAtMs: 5000, publishedAtMs: null });
  });

  test.for([
    ['three keys', (text: string) => text.repeat(3)],
    ['text that is no key', (text: string) => `${text}more`],
    ['half a key', (text: string) => text.slice(0, -40)],
    ['nothing', () => ''],
  ] as const)('are not read from a file with %s', async ([, change]) => {
    await using folder = await openTempDir();
    const { open, file } = await setUp(folder.path);
    await writeFile(file, change(await readFile(file, 'utf8')));
    await expect(open()).rejects.toMatchObject({ code: 'E_CONFLICT' });
  });
});
