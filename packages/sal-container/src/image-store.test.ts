import { appendFile, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { EFFECTS, type Effects, findTool } from '@hypha/sal';
import { forEachCrashPoint, untilDeath } from '@hypha/sal/contract';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { CONTAINER_LIMITS } from './container-limits.ts';
import { ImageStore } from './image-store.ts';
import { buildBusyboxImage } from './testing/busybox-image.ts';
import { failureOf } from './testing/failure.ts';
import { LocalRegistry } from './testing/local-registry.ts';
import { nodeOfEachTest } from './testing/node-of-each-test.ts';
import type { Scratch } from './testing/scratch.ts';
import { type ScratchNode, signal } from './testing/scratch-node.ts';

let scratch: Scratch;
let node: ScratchNode;
nodeOfEachTest((made, shared) => {
  [node, scratch] = [made, shared];
});

/** Counts the commands that got through to a tool. */
class CountedEffects implements Effects {
  readonly counts = new Map<string, number>();

  readonly run: Effects['run'] = (command) => {
    const tool = command.tool.split('/').at(-1) ?? '';
    this.counts.set(tool, (this.counts.get(tool) ?? 0) + 1);
    return EFFECTS.run(command);
  };

  change<T>(change: () => Promise<T>): Promise<T> {
    return EFFECTS.change(change);
  }
}

async function storeOf(effects: Effects = EFFECTS): Promise<ImageStore> {
  return new ImageStore(await node.host(effects));
}

async function ensure(text: string, effects?: Effects): Promise<string> {
  const store = await storeOf(effects);
  const image = await store.resolve(text);
  await store.ensure(image, signal());
  return image.sha256;
}

/** Names in `images` that hold content. */
async function listImages(): Promise<readonly string[]> {
  const { pool } = await node.host();
  const names = await readdir(pool.resolve('images')).catch(() => []);
  return names.filter((name) => !name.endsWith('.used') && !name.startsWith('.lock')).toSorted();
}

describe('an image of an OCI layout', () => {
  test('becomes a read-only subvolume with its root file system and its defaults', async () => {
    const sha256 = await ensure(node.image);
    const { pool } = await node.host();
    expect(await pool.isReadonly(`images/${sha256}`, signal())).toBe(true);
    const folder = pool.resolve(`images/${sha256}`);
    expect((await readdir(folder)).toSorted()).toEqual(['image.json', 'rootfs']);
    expect(await readdir(join(folder, 'rootfs'))).toContain('www');
    expect(JSON.parse(await readFile(join(folder, 'image.json'), 'utf8'))).toEqual({
      v: 1,
      sha256,
      entrypoint: [],
      command: ['/bin/httpd', '-f', '-p', '80', '-h', '/www'],
      env: ['PATH=/bin'],
      user: { uid: 0, gid: 0, additionalGids: [] },
      workdir: '/',
      stopSignal: '',
    });
  });

  test('is unpacked once, however often and by however many at a time', async () => {
    const effects = new CountedEffects();
    const store = await storeOf(effects);
    const other = await storeOf(effects);
    const image = await store.resolve(node.image);
    await Promise.all([
      store.ensure(image, signal()),
      store.ensure(image, signal()),
      // Another process of the node.
      other.ensure(image, signal()),
    ]);
    await store.ensure(image, signal());
    expect(effects.counts.get('umoci')).toBe(1);
    expect(await listImages()).toEqual([image.sha256]);
  });

  test('is whole or not there after a crash anywhere, and the next pull succeeds', async () => {
    const crashPoints = await forEachCrashPoint(async (effects, crashPoint) => {
      const world = node;
      const { pool } = await world.host();
      await untilDeath(effects, () => ensure(world.image, effects));
      const store = await storeOf();
      const image = await store.resolve(world.image);
      const isThere = await store.has(image.sha256);
      if (isThere) {
        const folder = pool.resolve(`images/${image.sha256}`);
        expect((await readdir(folder)).toSorted(), crashPoint).toEqual(['image.json', 'rootfs']);
        expect(await pool.isReadonly(`images/${image.sha256}`, signal()), crashPoint).toBe(true);
      }
      await store.ensure(image, signal());
      expect(await listImages(), crashPoint).toEqual([image.sha256]);
      await pool.deleteSubvolume(`images/${image.sha256}`, signal());
    });
    expect(crashPoints).toBeGreaterThan(4);
  });

  test.each([
    ['no such layout', 'oci:/nowhere/at/all:web', /cannot find an OCI layout/],
    ['no such tag', '', /cannot find tag other/],
  ])('%s is E_IMAGE, not to be retried', async (_title, text, message) => {
    const named = text === '' ? node.image.replace(/:web$/, ':other') : text;
    const error = await failureOf(ensure(named));
    expect(error).toMatchObject({ code: 'E_IMAGE', retryable: false });
    expect(error.message).toMatch(message);
    expect(await listImages()).toEqual([]);
  });

  test('a changed blob is refused, and nothing of it stays', async () => {
    const folder = join(scratch.folder, 'changed');
    const text = await buildBusyboxImage({ folder, tag: 'web' });
    try {
      const layers = await readdir(join(folder, 'blobs/sha256'));
      for (const name of layers) await appendFile(join(folder, 'blobs/sha256', name), ' ');
      expect(await failureOf(ensure(text))).toMatchObject({ code: 'E_IMAGE', retryable: false });
      expect(await listImages()).toEqual([]);
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  test('a layer cut short is refused, and nothing of it stays', async () => {
    const folder = join(scratch.folder, 'cut');
    const text = await buildBusyboxImage({ folder, tag: 'web' });
    try {
      const index = JSON.parse(await readFile(join(folder, 'index.json'), 'utf8')) as {
        manifests: { digest: string }[];
      };
      const blob = (digest = '') => join(folder, 'blobs/sha256', digest.replace('sha256:', ''));
      const manifest = JSON.parse(await readFile(blob(index.manifests[0]?.digest), 'utf8')) as {
        layers: { digest: string }[];
      };
      await truncate(blob(manifest.layers.at(-1)?.digest), 1000);
      expect(await failureOf(ensure(text))).toMatchObject({ code: 'E_IMAGE', retryable: false });
      expect(await listImages()).toEqual([]);
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  test('an image of another architecture is refused', async () => {
    const folder = join(scratch.folder, 'foreign');
    const text = await buildBusyboxImage({ folder, tag: 'web', architecture: 's390x' });
    try {
      const error = await failureOf(ensure(text));
      expect(error).toMatchObject({ code: 'E_IMAGE', retryable: false });
      expect(error.message).toContain('linux/s390x');
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  test('whoever no longer wants it leaves no half image', async () => {
    const store = await storeOf();
    const image = await store.resolve(node.image);
    const stop = new AbortController();
    const pull = store.ensure(image, stop.signal);
    stop.abort(new Error('changed my mind'));
    await expect(pull).rejects.toThrow('changed my mind');
    expect(await listImages()).toEqual([]);
  });
});

describe('images that nobody uses', () => {
  const nobody = async () => new Set<string>();

  test('stay for a while and then go', async () => {
    const sha256 = await ensure(node.image);
    const store = await storeOf();
    await store.collect(nobody, signal());
    expect(await listImages()).toEqual([sha256]);
    node.laterMs = CONTAINER_LIMITS.imageKeepMs + 1000;
    await store.collect(async () => new Set([sha256]), signal());
    expect(await listImages()).toEqual([sha256]);
    await store.collect(nobody, signal());
    expect(await listImages()).toEqual([]);
    await store.collect(nobody, signal());
  });

  test('half images of dead processes go at once', async () => {
    const { pool } = await node.host();
    await pool.createSubvolume(`images/.tmp-${'a'.repeat(64)}-1`, signal());
    await writeFile(join(pool.resolve(`images/.tmp-${'a'.repeat(64)}-1`), 'part'), 'x');
    await (await storeOf()).collect(nobody, signal());
    expect(await listImages()).toEqual([]);
  });
});

describe('an image of a registry', () => {
  let registry: LocalRegistry;
  let plain: ScratchNode;

  beforeEach(async (context) => {
    if ((await findTool('docker-registry')) === undefined) context.skip('needs docker-registry');
    registry = await LocalRegistry.start();
    plain = await scratch.createNode({ plainRegistries: [registry.address] });
  });

  afterEach(async () => {
    await plain?.close();
    await registry?.stop();
  });

  test('is pulled by digest, once, and runs', async () => {
    const text = await registry.push(node.image, 'team/web');
    const files = { '/www/page': 'from a registry' };
    const health = { http: { port: 80, path: '/page' } };
    await plain.ensure('web', { image: text, files, health });
    await registry.stop();
    // It is here: the registry is not asked again.
    await plain.ensure('two', { image: text, files, health });
    const { images } = await plain.containers();
    expect(await images.has(text.slice(-64))).toBe(true);
  });

  test('a digest it does not have is terminal, and a registry that is gone is not', async () => {
    const text = await registry.push(node.image, 'web');
    const wrong = `${text.slice(0, -64)}${'0'.repeat(64)}`;
    const unknown = text.replace('/web@', '/never-pushed@');
    const { images } = await plain.containers();
    const pull = async (named: string) => images.ensure(await images.resolve(named), signal());
    for (const named of [wrong, unknown]) {
      expect(await failureOf(pull(named)), named).toMatchObject({
        code: 'E_IMAGE',
        retryable: false,
      });
    }
    await registry.stop();
    expect(await failureOf(pull(text))).toMatchObject({ code: 'E_IMAGE', retryable: true });
  });

  test('without TLS only where the configuration says so', async () => {
    const text = await registry.push(node.image, 'web');
    const strict = await storeOf();
    const error = await failureOf(strict.ensure(await strict.resolve(text), signal()));
    expect(error).toMatchObject({ code: 'E_IMAGE', retryable: false });
    expect(await listImages()).toEqual([]);
  });
});
