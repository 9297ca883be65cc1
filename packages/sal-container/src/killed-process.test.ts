import { fileURLToPath } from 'node:url';
import { openFence } from '@hypha/sal';
import { contractRef, describeKilledProcess } from '@hypha/sal/contract';
import { afterAll } from 'vitest';
import { findLack, Scratch } from './testing/scratch.ts';
import { type ScratchNode, signal } from './testing/scratch-node.ts';

const lacking = await findLack();
// Before the suite is described, because its calls name the image.
const scratch = lacking === undefined ? await Scratch.create() : undefined;

afterAll(() => scratch?.close());

const first = {
  verb: 'container.ensure',
  name: 'web',
  args: {
    image: scratch?.image ?? '',
    memory: '16MiB',
    mounts: { '/mnt': contractRef('volume', 'data') },
    files: { '/www/page': 'first' },
    health: { http: { port: 80, path: '/page' }, within: '20s' },
  },
};

async function createWorld(): Promise<ScratchNode> {
  if (scratch === undefined) throw new Error(lacking);
  const node = await scratch.createNode();
  await node.volume('data');
  const { images } = await node.containers();
  await images.ensure(await images.resolve(node.image), signal());
  return node;
}

describeKilledProcess({
  adapter: 'sal-container',
  createWorld,
  lacking,
  timeoutMs: 600_000,
  script: fileURLToPath(new URL('testing/fatal-step.ts', import.meta.url)),
  tellWorld: (node) => node.tell(),
  openFence: async (node) => {
    const { cgroups, group } = await node.host();
    return openFence({ cgroup2: cgroups.cgroup2, group, name: 'fatal-step' });
  },
  cases: [
    { ...first, title: 'creates one' },
    {
      ...first,
      args: { ...first.args, files: { '/www/page': 'second' } },
      title: 'replaces one',
      given: [first],
    },
    { ...first, args: { ...first.args, memory: '32MiB' }, title: 'gives one more', given: [first] },
  ],
});
