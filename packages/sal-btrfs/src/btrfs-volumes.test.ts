import { glob, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { EFFECTS, type Sal } from '@hypha/sal';
import {
  applyWhole,
  type ContractCall,
  contractContext,
  contractRef,
  contractRid,
  describeReadContract,
  describeResourceContract,
  describeStepContract,
  getVerb,
} from '@hypha/sal/contract';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { BtrfsPool } from './btrfs-pool.ts';
import { findLack, ScratchPool, signal } from './testing/scratch-pool.ts';
import { VolumeWorld } from './testing/volume-world.ts';

const lacking = await findLack();
let scratch: ScratchPool;
let shared: BtrfsPool;

beforeAll(async () => {
  if (lacking !== undefined) return;
  scratch = await ScratchPool.create();
  shared = await scratch.pool();
});

afterAll(() => scratch?.close());

const data: ContractCall = { verb: 'volume.ensure', name: 'data', args: { size: '1MiB' } };
const grown: ContractCall = { ...data, args: { size: '2MiB', snapshotBefore: true } };
const clone: ContractCall = {
  ...data,
  args: { size: '1MiB', cloneOf: contractRef('volume', 'source') },
};
const before: ContractCall = {
  verb: 'volume.snapshot',
  name: 'data',
  args: { volume: contractRef('volume', 'data'), name: 'before' },
};
const source = { ...data, name: 'source' };

describeStepContract({
  adapter: 'btrfs volumes',
  lacking,
  createWorld: () => VolumeWorld.create(shared),
  cases: [
    { ...data, title: 'creates one', action: 'create', beside: source, next: grown },
    {
      ...clone,
      title: 'clones one',
      given: [source],
      arrange: (world) => world.write('source', 'cloned'),
      action: 'create',
      beside: { ...clone, name: 'other' },
    },
    {
      ...data,
      title: 'leaves one as it is',
      given: [data],
      arrange: (world) => world.write('data', 'kept'),
      action: 'no-op',
    },
    {
      ...grown,
      title: 'keeps the content of the one it grows',
      given: [data],
      arrange: (world) => world.write('data', 'kept'),
      action: 'update',
      differs: ['size'],
      next: before,
    },
    {
      ...grown,
      title: 'keeps the content of one that it leaves as it is',
      given: [grown],
      arrange: (world) => world.write('data', 'kept'),
      action: 'update',
      differs: ['snapshotBefore'],
    },
    {
      ...before,
      title: 'takes one',
      given: [data],
      arrange: (world) => world.write('data', 'kept'),
      action: 'create',
      beside: source,
      next: grown,
    },
    { ...before, title: 'leaves one as it is', given: [data, before], action: 'no-op' },
  ],
});

describeReadContract({
  adapter: 'btrfs volumes',
  lacking,
  createWorld: () => VolumeWorld.create(shared),
  cases: [
    {
      verb: 'volume.get',
      name: 'data',
      args: {},
      title: 'finds one',
      given: [data],
      codeWithout: 'E_NOT_FOUND',
    },
    {
      verb: 'volume.get',
      name: 'data',
      args: {},
      title: 'finds one that shrinks with the commit',
      given: [grown, data],
      codeWithout: 'E_NOT_FOUND',
    },
  ],
});

describeResourceContract({
  adapter: 'btrfs volumes',
  lacking,
  createWorld: () => VolumeWorld.create(shared),
  cases: [
    {
      title: 'volume',
      declared: data,
      holdsData: true,
      lose: (world, record) =>
        shared.deleteSubvolume(`${world.name}/volumes/${record.rid}`, signal()),
    },
    {
      title: 'clone',
      declared: clone,
      given: [source],
      holdsData: true,
      lose: (world, record) =>
        shared.deleteSubvolume(`${world.name}/volumes/${record.rid}`, signal()),
    },
  ],
});

describe('a btrfs volume', () => {
  beforeEach((context) => {
    if (lacking !== undefined) context.skip(lacking);
  });

  async function onWorld(act: (world: VolumeWorld, sal: Sal) => Promise<void>): Promise<void> {
    const world = await VolumeWorld.create(shared);
    try {
      await act(world, await world.open(EFFECTS));
    } finally {
      await world.close();
    }
  }

  test('that is a clone has the content of its source and shares no later write', () =>
    onWorld(async (world, sal) => {
      await applyWhole(sal, source);
      await world.write('source', 'one');
      expect(await applyWhole(sal, clone)).toMatchObject({ kind: 'volume', simulated: false });
      await world.write('source', 'two');
      expect(await world.read('data')).toBe('one');
    }));

  test('whose content a failed run changed has it back when asked before', () =>
    onWorld(async (world, sal) => {
      await applyWhole(sal, data);
      await world.write('data', 'good');
      const verb = getVerb(sal, grown.verb);
      const context = contractContext(verb, grown);
      const args = verb.parse(grown.args);
      const plan = await verb.plan(context, args);
      await verb.apply(context, args, plan.before);
      await world.write('data', 'ruined');
      await verb.undo?.(context, args, plan.before);
      expect(await world.read('data')).toBe('good');
    }));

  test('keeps what a failed run wrote when it was not asked', () =>
    onWorld(async (world, sal) => {
      await applyWhole(sal, data);
      const verb = getVerb(sal, data.verb);
      const args = verb.parse({ size: '2MiB' });
      const context = contractContext(verb, data);
      const plan = await verb.plan(context, args);
      await verb.apply(context, args, plan.before);
      await world.write('data', 'written meanwhile');
      await verb.undo?.(context, args, plan.before);
      expect(await world.read('data')).toBe('written meanwhile');
    }));

  test('loses the snapshot kept for undo once its run has committed, and no other', () =>
    onWorld(async (world, sal) => {
      await applyWhole(sal, data);
      await applyWhole(sal, before, { step: 2 });
      await applyWhole(sal, grown, { run: 'b' });
      const rid = contractRid('volume', 'data');
      const folder = join(world.root, 'snapshots', rid);
      const names = async () => (await Array.fromAsync(glob('*', { cwd: folder }))).sort();
      expect(await names()).toEqual(['before', `run_${'b'.repeat(26)}`]);
      await sal.resource.settle?.(recordFor(rid), signal());
      expect(await names()).toEqual(['before']);
    }));

  test('is refused when the pool has no room for it', () =>
    onWorld(async (world, sal) => {
      const nothing = await world.capture();
      await expect(applyWhole(sal, { ...data, args: { size: '1TiB' } })).rejects.toMatchObject({
        code: 'E_STORAGE',
      });
      expect(await world.capture()).toEqual(nothing);
    }));

  test('is not grown beyond the room there is', () =>
    onWorld(async (_world, sal) => {
      await applyWhole(sal, data);
      await expect(applyWhole(sal, { ...data, args: { size: '1TiB' } })).rejects.toMatchObject({
        code: 'E_STORAGE',
      });
    }));

  test('snapshot holds its content and cannot be written', () =>
    onWorld(async (world, sal) => {
      await applyWhole(sal, data);
      await world.write('data', 'then');
      await applyWhole(sal, before, { step: 2 });
      await world.write('data', 'now');
      const folder = join(world.root, 'snapshots', contractRid('volume', 'data'), 'before', 'data');
      expect(await readFile(join(folder, 'content'), 'utf8')).toBe('then');
      await expect(writeFile(join(folder, 'content'), 'x')).rejects.toMatchObject({
        code: 'EROFS',
      });
    }));

  test('is the same after it was declared, undone and declared again by another run', () =>
    onWorld(async (world, sal) => {
      const verb = getVerb(sal, data.verb);
      const args = verb.parse(data.args);
      const context = contractContext(verb, data, { run: 'c' });
      const plan = await verb.plan(context, args);
      await verb.apply(context, args, plan.before);
      await verb.undo?.(context, args, plan.before);
      await applyWhole(sal, data);
      await world.write('data', 'mine');
      // A late undo of the failed run, from a runner that was presumed dead.
      await verb.undo?.(context, args, plan.before);
      expect(await world.read('data')).toBe('mine');
    }));
});

function recordFor(rid: string): Parameters<Sal['resource']['observe']>[0] {
  return {
    realm: 'default',
    deployment: 'contract',
    rid,
    kind: 'volume',
    name: 'data',
    spec: { size: 2 * 1024 * 1024, snapshotBefore: true },
    specHash: '0'.repeat(64),
  };
}
