import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { ResourceRecord } from '@hypha/sal';
import {
  contractRef,
  contractRid,
  describeOnceContract,
  describeReadContract,
  describeResourceContract,
  describeStepContract,
} from '@hypha/sal/contract';
import { afterAll, expect, vi } from 'vitest';
import { CONTAINER_LIMITS } from './container-limits.ts';
import { ContractWorlds } from './testing/contract-worlds.ts';
import { type ScratchNode, signal } from './testing/scratch-node.ts';

const worlds = await ContractWorlds.open();
const { lacking, page: first, create: createWorld } = worlds;
afterAll(() => worlds.close());

const second = { ...first, args: { ...first.args, files: { '/www/page': 'second' } } };
/** Serves the same page with more, and with less. */
const more = { ...first, args: { ...first.args, memory: '32MiB', cpus: 1, restart: 'on-failure' } };
const less = { ...first, args: { ...first.args, memory: '8MiB', pids: 64 } };
const other = { ...first, name: 'one' };
const resting = {
  verb: 'container.ensure',
  name: 'job',
  args: { image: worlds.image, command: ['/bin/touch', '/data/done'], restart: 'never' },
};

describeStepContract({
  adapter: 'sal-container',
  createWorld,
  lacking,
  timeoutMs: 600_000,
  cases: [
    { ...first, title: 'creates one', action: 'create', beside: other, next: second },
    {
      ...second,
      title: 'replaces one and parks the old',
      given: [first],
      // What the old one wrote is there again after an undo.
      arrange: (node) => leaveMark(node),
      action: 'replace',
      differs: ['files./www/page'],
      next: { ...second, args: { ...second.args, cpus: 1 } },
    },
    {
      ...more,
      title: 'gives one more',
      given: [first],
      arrange: (node) => leaveMark(node),
      action: 'update',
      differs: ['cpus', 'memory', 'restart'],
      beside: other,
      next: { ...second, args: { ...second.args, memory: '32MiB' } },
    },
    {
      ...less,
      title: 'gives one less',
      given: [first],
      action: 'update',
      differs: ['memory', 'pids'],
    },
    { ...first, title: 'leaves one as it is', given: [first], action: 'no-op' },
  ],
});

describeReadContract({
  adapter: 'sal-container',
  createWorld,
  lacking,
  cases: [
    {
      verb: 'container.get',
      name: 'web',
      args: {},
      title: 'finds one',
      given: [first],
      codeWithout: 'E_NOT_FOUND',
    },
  ],
});

describeOnceContract({
  adapter: 'sal-container',
  createWorld,
  lacking,
  cases: [
    {
      verb: 'container.exec',
      name: 'web',
      args: {
        container: contractRef('container', 'web'),
        command: ['/bin/sh', '-c', 'echo done >> /mnt/runs'],
      },
      title: 'runs a command',
      given: [first],
      countEffects: async (node) => {
        const path = join(await node.volume('data'), 'runs');
        const text = await readFile(path, 'utf8').catch(() => '');
        return text.split('\n').length - 1;
      },
    },
  ],
});

describeResourceContract({
  adapter: 'sal-container',
  createWorld,
  lacking,
  timeoutMs: 600_000,
  cases: [
    {
      title: 'container',
      declared: first,
      lose: (node, record) => killContainer(node, record),
      holdsData: false,
    },
    {
      title: 'job that has ended',
      declared: resting,
      lose: async (node, record) => {
        const { host, store } = await node.containers();
        for (const instance of await store.list(record.rid)) {
          await host.pool.deleteSubvolume(`containers/${instance.id}`, signal());
        }
      },
      holdsData: false,
    },
  ],
});

async function leaveMark(node: ScratchNode): Promise<void> {
  const { store } = await node.containers();
  for (const instance of await store.list(contractRid('container', 'web'))) {
    await writeFile(join(store.folder(instance), 'rootfs/data/mark'), 'kept');
  }
}

async function killContainer(node: ScratchNode, record: ResourceRecord): Promise<void> {
  const { runtime, store } = await node.containers();
  const current = await store.findCurrent(record.rid);
  if (current === undefined) throw new Error('not there');
  const status = await runtime.status(current, signal());
  if (!('pid' in status)) throw new Error('not running');
  process.kill(status.pid, 'SIGKILL');
  await vi.waitFor(async () => expect(await store.findExit(current)).toBeDefined());
  // Until its next start is due there is nothing to do.
  node.laterMs += CONTAINER_LIMITS.restartMsMax;
}
