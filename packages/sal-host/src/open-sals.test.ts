import { access, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isHyphaError } from '@hypha/protocol';
import { applyWhole, contractRid } from '@hypha/sal/contract';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { detectMachine } from './machine.ts';
import { type OpenSals, openSals } from './open-sals.ts';
import { groupOf, SalConfig } from './sal-config.ts';

const machine = await detectMachine(AbortSignal.timeout(30_000));
const node = `node_${'a'.repeat(32)}`;
const data = { verb: 'volume.ensure', name: 'data', args: { size: '1MiB' } };
const opened: OpenSals[] = [];
let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'hypha-sals-'));
});

afterEach(async () => {
  for (const sals of opened.splice(0).reverse()) await sals.close(signal());
  const mounts = await readFile('/proc/self/mountinfo', 'utf8').catch(() => '');
  expect(mounts).not.toContain(folder);
  await rm(folder, { recursive: true });
});

function signal(): AbortSignal {
  return AbortSignal.timeout(60_000);
}

async function open(
  settings: Partial<SalConfig> = {},
  role: 'owner' | 'guest' = 'owner',
): Promise<OpenSals> {
  const config = SalConfig.parse({ folder, poolBytes: 256 * 1024 ** 2, ...settings });
  const sals = await openSals(config, { role, node, nowMs: () => 0, signal: signal() });
  opened.push(sals);
  return sals;
}

async function volumeOf({ sals }: OpenSals) {
  const sal = sals.list.find(({ kind }) => kind === 'volume');
  if (sal === undefined) throw new Error('no volumes');
  return sal;
}

test('simulates both kinds when told to, shared by owner and guest', async () => {
  const owner = await open({ mode: 'simulated' });
  expect(owner.sals.isSimulated('volume')).toBe(true);
  expect(owner.sals.isSimulated('container')).toBe(true);
  await applyWhole(await volumeOf(owner), data);
  const guest = await open(JSON.parse(JSON.stringify(owner.config)), 'guest');
  const listed = await guest.sals.findKind('volume')?.list(signal());
  expect(listed?.map(({ rid }) => rid)).toEqual([contractRid('volume', 'data')]);
  expect((await owner.usage()).sizeBytes).toBeGreaterThan(0);
});

test('has every verb in either mode', async () => {
  const { sals } = await open({ mode: 'simulated' });
  for (const verb of ['volume.ensure', 'volume.snapshot', 'container.ensure', 'container.exec']) {
    expect(sals.findVerb(verb)?.verb).toBe(verb);
  }
});

test('detects a reason and, for missing tools, a command where a kind does not work', () => {
  for (const kind of [machine.volume, machine.container]) {
    expect(kind.works || kind.reason !== undefined).toBe(true);
  }
  expect(machine.tools.every(({ path }) => path === null || path.startsWith('/'))).toBe(true);
});

test('derives the same group from the same folder only', () => {
  expect(groupOf('/srv/a')).toMatch(/^hypha-[0-9a-f]{8}$/);
  expect(groupOf('/srv/a')).toBe(groupOf('/srv/a'));
  expect(groupOf('/srv/a')).not.toBe(groupOf('/srv/b'));
});

describe('on a machine where volumes work', () => {
  beforeEach((context) => {
    if (!machine.volume.works) context.skip('needs root, btrfs and loop devices');
  });

  test('keeps volumes for owner and guest on one pool, which goes with the owner', async () => {
    const owner = await open();
    expect(owner.sals.isSimulated('volume')).toBe(false);
    const guest = await open(JSON.parse(JSON.stringify(owner.config)), 'guest');
    await applyWhole(await volumeOf(guest), data);
    const listed = await owner.sals.findKind('volume')?.list(signal());
    expect(listed).toEqual([
      { rid: contractRid('volume', 'data'), label: 'default/contract/volume/data' },
    ]);
    await guest.close(signal());
    await access(join(folder, 'pool', 'volumes'));
    await owner.close(signal());
    await expect(access(join(folder, 'pool', 'volumes'))).rejects.toThrow();
  });

  test('finds everything again after the owner was killed', async () => {
    await applyWhole(await volumeOf(await open()), data);
    // A killed owner closes nothing.
    const next = await open();
    expect(await next.sals.findKind('volume')?.list(signal())).toHaveLength(1);
  });

  test('lets no guest in before the owner has mounted', async () => {
    const choice = { volume: true, container: false };
    const error = await open({ choice }, 'guest').catch((cause: unknown) => cause);
    expect(isHyphaError(error, 'E_UNAVAILABLE')).toBe(true);
  });

  test('does not simulate what was real before', async () => {
    await (await open()).close(signal());
    await expect(open({ mode: 'simulated' })).rejects.toMatchObject({ code: 'E_CONFLICT' });
    await rm(join(folder, 'pool.img'));
    await writeFile(join(folder, 'pool.img'), 'precious');
    await expect(open()).rejects.toMatchObject({ code: 'E_SAL' });
    expect(await readFile(join(folder, 'pool.img'), 'utf8')).toBe('precious');
  });

  test('simulates with the reason when the first pool does not open', async () => {
    await writeFile(join(folder, 'pool.img'), 'precious');
    const { sals } = await open();
    expect(sals.isSimulated('volume')).toBe(true);
    expect(sals.list.map(({ status }) => status.reason)).toEqual([
      expect.stringContaining('pool.img'),
      expect.stringContaining('pool.img'),
    ]);
    expect(await readFile(join(folder, 'pool.img'), 'utf8')).toBe('precious');
    await expect(open({ mode: 'real' })).rejects.toMatchObject({ code: 'E_SAL' });
  });

  test('lets no second node on the pool of the first', async () => {
    const { config } = await open();
    const poolPath = join(folder, 'pool');
    const other = { ...config, folder: join(folder, 'other'), poolPath };
    const opening = openSals(other, {
      role: 'owner',
      node: `node_${'b'.repeat(32)}`,
      nowMs: () => 0,
      signal: signal(),
    });
    await expect(opening).rejects.toMatchObject({ code: 'E_CONFLICT' });
  });

  test('refuses a folder of another file system as a pool', async () => {
    await mkdir(join(folder, 'plain'));
    const poolPath = join(folder, 'plain');
    await expect(open({ mode: 'real', poolPath })).rejects.toMatchObject({ code: 'E_SAL' });
  });
});

test('refuses a configuration that simulates volumes under real containers', () => {
  const choice = { volume: false, container: true };
  expect(SalConfig.safeParse({ folder: '/srv/x', choice }).success).toBe(false);
  expect(SalConfig.safeParse({ folder: 'relative' }).success).toBe(false);
});
