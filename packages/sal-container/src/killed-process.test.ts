import { fileURLToPath } from 'node:url';
import { openFence } from '@hypha/sal';
import { describeKilledProcess } from '@hypha/sal/contract';
import { afterAll } from 'vitest';
import { ContractWorlds } from './testing/contract-worlds.ts';

const worlds = await ContractWorlds.open();
const { lacking, page: first, create: createWorld } = worlds;
afterAll(() => worlds.close());

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
