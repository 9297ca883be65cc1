import { fileURLToPath } from 'node:url';
import { detectCgroups, openFence, removeFenceGroup } from '@hypha/sal';
import { type ContractCall, contractRef, describeKilledProcess } from '@hypha/sal/contract';
import { afterAll, beforeAll } from 'vitest';
import type { BtrfsPool } from './btrfs-pool.ts';
import { findLack, ScratchPool } from './testing/scratch-pool.ts';
import { VolumeWorld } from './testing/volume-world.ts';

const lacking = await findLack();
const { cgroup2 } = await detectCgroups();
const group = `hypha-volumes-${process.pid}`;
let scratch: ScratchPool;
let shared: BtrfsPool;

beforeAll(async () => {
  if (lacking !== undefined) return;
  scratch = await ScratchPool.create();
  shared = await scratch.pool();
});

afterAll(async () => {
  await removeFenceGroup(cgroup2, group);
  await scratch?.close();
});

const data: ContractCall = { verb: 'volume.ensure', name: 'data', args: { size: '1MiB' } };
const source: ContractCall = { ...data, name: 'source' };

describeKilledProcess({
  adapter: 'btrfs volumes',
  lacking,
  createWorld: () => VolumeWorld.create(shared),
  script: fileURLToPath(new URL('testing/fatal-step.ts', import.meta.url)),
  tellWorld: (world) => world.root,
  openFence: () => openFence({ cgroup2, group, name: 'fatal-step' }),
  cases: [
    { ...data, title: 'creates one' },
    {
      ...data,
      args: { size: '1MiB', cloneOf: contractRef('volume', 'source') },
      title: 'clones one',
      given: [source],
      arrange: (world) => world.write('source', 'cloned'),
    },
    {
      ...data,
      args: { size: '2MiB', snapshotBefore: true },
      title: 'keeps the content of the one it grows',
      given: [data],
      arrange: (world) => world.write('data', 'kept'),
    },
    {
      verb: 'volume.snapshot',
      name: 'data',
      args: { volume: contractRef('volume', 'data'), name: 'before' },
      title: 'takes one',
      given: [data],
      arrange: (world) => world.write('data', 'kept'),
    },
  ],
});
