import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { access, mkdir, open, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { EFFECTS } from '@hypha/sal';
import { forEachCrashPoint, untilDeath } from '@hypha/sal/contract';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { openPool } from './open-pool.ts';
import { findLack, getTools, ScratchPool, signal } from './testing/scratch-pool.ts';

const lacking = await findLack();
let scratch: ScratchPool;

beforeEach(async (context) => {
  if (lacking !== undefined) context.skip(lacking);
  scratch = await ScratchPool.create();
});

afterEach(async () => {
  const { file } = scratch.config;
  const isOurs = await access(file).then(
    async () => (await stat(file)).size >= scratch.config.sizeBytes,
    () => false,
  );
  if (isOurs) await scratch.close();
  else await rm(scratch.folder, { recursive: true });
});

async function mountsBelow(folder: string): Promise<number> {
  const table = await readFile('/proc/self/mountinfo', 'utf8');
  return table.split('\n').filter((line) => line.includes(folder)).length;
}

test('makes the pool once and finds it again, with its volumes', async () => {
  const first = await scratch.open();
  await first.pool.createSubvolume('volumes/kept', signal());
  await first.close(signal());
  const second = await scratch.open();
  expect(await second.pool.isSubvolume('volumes/kept')).toBe(true);
});

test('takes over the mount of a killed predecessor instead of mounting twice', async () => {
  const first = await scratch.open();
  await first.pool.createSubvolume('volumes/kept', signal());
  const second = await scratch.open();
  expect(await second.pool.isSubvolume('volumes/kept')).toBe(true);
  expect(await mountsBelow(scratch.folder)).toBe(1);
  expect(await scratch.loopDevices()).toHaveLength(1);
});

test('leaves no mount and no loop device when closed, also when closed twice', async () => {
  const owner = await scratch.open();
  expect(await scratch.loopDevices()).toHaveLength(1);
  await owner.close(signal());
  await owner.close(signal());
  expect(await mountsBelow(scratch.folder)).toBe(0);
  expect(await scratch.loopDevices()).toEqual([]);
});

test('mounts anew what became read-only, as a pool does whose disk was full', async () => {
  const first = await scratch.open();
  await first.pool.createSubvolume('volumes/kept', signal());
  const argv = ['-o', 'remount,ro', scratch.config.mountPoint];
  await EFFECTS.run({ tool: scratch.tools.mount, argv, purpose: 'remount', signal: signal() });
  await expect(first.pool.createSubvolume('volumes/more', signal())).rejects.toThrow();
  const second = await scratch.open();
  await second.pool.createSubvolume('volumes/more', signal());
  expect(await second.pool.isSubvolume('volumes/kept')).toBe(true);
  expect(await mountsBelow(scratch.folder)).toBe(1);
  expect(await scratch.loopDevices()).toHaveLength(1);
});

test('uses a loop device that is attached already, and detaches it in the end', async () => {
  await (await scratch.open()).close(signal());
  const { losetup } = scratch.tools;
  const argv = ['--find', scratch.config.file];
  await EFFECTS.run({ tool: losetup, argv, purpose: 'attach', signal: signal() });
  const owner = await scratch.open();
  expect(await scratch.loopDevices()).toHaveLength(1);
  await owner.close(signal());
  expect(await scratch.loopDevices()).toEqual([]);
});

test('mounts without devices and set-uid programs', async () => {
  await scratch.open();
  const table = await readFile('/proc/self/mountinfo', 'utf8');
  const line = table.split('\n').find((text) => text.includes(scratch.folder)) ?? '';
  expect(line.split(' ')[5]?.split(',')).toEqual(expect.arrayContaining(['nosuid', 'nodev']));
});

test('unmounts as soon as what used the pool has ended', async () => {
  const owner = await scratch.open();
  const handle = await open(join(owner.pool.root, 'busy'), 'w');
  const closing = owner.close(signal());
  await handle.close();
  await closing;
  expect(await mountsBelow(scratch.folder)).toBe(0);
});

test('says that the pool is in use when it stays so', { timeout: 30_000 }, async () => {
  const owner = await scratch.open();
  const child = spawn('/bin/sleep', ['60'], { cwd: owner.pool.root, stdio: 'ignore' });
  try {
    await once(child, 'spawn');
    await expect(owner.close(signal())).rejects.toMatchObject({ code: 'E_SAL' });
    expect(await owner.pool.isSubvolume('none')).toBe(false);
  } finally {
    child.kill('SIGKILL');
    await once(child, 'exit');
  }
});

test('a guest neither mounts nor unmounts', async () => {
  await expect(scratch.open('guest')).rejects.toMatchObject({ code: 'E_UNAVAILABLE' });
  await scratch.open();
  await (await scratch.open('guest')).close(signal());
  expect(await mountsBelow(scratch.folder)).toBe(1);
});

test('comes up after a crash anywhere in making it', { timeout: 120_000 }, async () => {
  const crashPoints = await forEachCrashPoint(async (effects, crashPoint) => {
    const own = await ScratchPool.create();
    try {
      await untilDeath(effects, () => own.open('owner', effects));
      const { pool } = await own.open();
      await pool.createSubvolume('volumes/made', signal());
      expect(await own.loopDevices(), crashPoint).toHaveLength(1);
    } finally {
      await own.close();
    }
  });
  expect(crashPoints).toBeGreaterThan(2);
});

test('touches no file that it did not make', async () => {
  const { file } = scratch.config;
  for (const content of ['', 'precious', '\0'.repeat(70_000)]) {
    await writeFile(file, content);
    await expect(scratch.open()).rejects.toMatchObject({ code: 'E_SAL' });
    expect(await readFile(file, 'utf8')).toBe(content);
  }
});

test('takes no btrfs file system of another', async () => {
  const { file, sizeBytes } = scratch.config;
  const tools = await getTools();
  await writeFile(file, '');
  const handle = await open(file, 'r+');
  await handle.truncate(sizeBytes);
  await handle.close();
  const argv = ['--quiet', '--label', 'family-photos', file];
  await EFFECTS.run({ tool: tools.mkfs, argv, purpose: 'make', signal: signal() });
  await expect(scratch.open()).rejects.toMatchObject({ code: 'E_SAL' });
  expect(await scratch.loopDevices()).toEqual([]);
  await rm(file);
});

test('refuses a mount point that something else has', async () => {
  const { mountPoint } = scratch.config;
  await mkdir(mountPoint);
  const { mount, umount } = scratch.tools;
  const argv = ['-t', 'tmpfs', 'none', mountPoint];
  await EFFECTS.run({ tool: mount, argv, purpose: 'mount', signal: signal() });
  try {
    await expect(scratch.open()).rejects.toMatchObject({ code: 'E_SAL' });
  } finally {
    await EFFECTS.run({ tool: umount, argv: [mountPoint], purpose: 'unmount', signal: signal() });
  }
});

test('refuses a pool too small to be one and one larger than the disk', async () => {
  const { tools, config } = scratch;
  const sized = (sizeBytes: number) =>
    openPool({ config: { ...config, sizeBytes }, tools, role: 'owner', signal: signal() });
  await expect(sized(1024)).rejects.toMatchObject({ code: 'E_ARGUMENT' });
  await expect(sized(2 ** 60)).rejects.toMatchObject({ code: 'E_STORAGE' });
  await expect(access(config.file)).rejects.toMatchObject({ code: 'ENOENT' });
});
