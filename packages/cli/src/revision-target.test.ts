import { expect, test } from 'vitest';
import { resolveTargets } from './revision-target.ts';
import type { Session } from './session.ts';

const NODES = ['a', 'b'].map((letter) => ({
  ...{ id: `node_${letter.repeat(32)}`, name: letter },
  url: `http://${letter}.example`,
}));

function resolve(nodes: readonly unknown[], wanted: readonly string[], nodeUrl?: string) {
  const session = { context: { nodes } } as unknown as Session;
  const flags = { via: 'node', ...(nodeUrl === undefined ? {} : { nodeUrl }) } as const;
  return resolveTargets(session, wanted, flags);
}

test('of several nodes, work goes to the one that is asked by its address', async () => {
  expect(await resolve(NODES, [], 'http://b.example')).toEqual([NODES[1]]);
  expect(await resolve(NODES, ['a'], 'http://tunnel.example')).toEqual([NODES[0]]);
  await expect(resolve(NODES, [], 'http://tunnel.example')).rejects.toMatchObject({
    code: 'E_ARGUMENT',
    hint: 'name it as well: --node a',
  });
  await expect(resolve(NODES, [])).rejects.toMatchObject({
    code: 'E_ARGUMENT',
    hint: 'name one with --node-url URL',
  });
});

test('an address that is not known is that of the only node', async () => {
  expect(await resolve(NODES.slice(1), [], 'http://tunnel.example')).toEqual([NODES[1]]);
});
