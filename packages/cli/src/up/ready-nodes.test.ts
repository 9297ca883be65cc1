import type { CoordinatorClient } from '@hypha/client';
import type { NodeView } from '@hypha/protocol';
import { expect, test } from 'vitest';
import { waitForNodes } from './ready-nodes.ts';

const NODE = { id: 'node_own', name: 'edge-1', url: 'http://127.0.0.1:1' };
const view = (id: string): NodeView => ({
  ...{ id, name: NODE.name, state: 'ready', labels: {}, realms: ['*'] },
  ...{
    keyid: '',
    publicKey: '',
    sealKey: '',
    enrolledAt: 0,
    lastReportAt: 0,
    bootId: '',
    uptimeMs: 0,
  },
  facts: {
    ...{ hostname: '', os: '', kernel: '', arch: '', cpus: 1, memoryBytes: 0, storageBytes: 0 },
    ...{ hyphaVersion: '', nodeVersion: '', cgroups: '', sals: {} },
  },
  free: { milliCpus: 0, memoryBytes: 0, storageBytes: 0 },
});

function coordinatorOf(...answers: readonly NodeView[][]): Pick<CoordinatorClient, 'listNodes'> {
  let asked = 0;
  return {
    listNodes: async () => ({
      items: answers[Math.min(asked++, answers.length - 1)] ?? [],
      nextCursor: null,
    }),
  };
}

test('another node with the same name is not the node that was started', async () => {
  const reasons: string[] = [];
  const other = view('node_other');
  const coordinator = coordinatorOf([other], [other], [other, view(NODE.id)]);
  const ready = await waitForNodes(coordinator, [NODE], {
    signal: AbortSignal.timeout(10_000),
    onWaiting: (_, reason) => reasons.push(reason),
  });
  expect(ready.map(({ id }) => id)).toEqual([NODE.id]);
  expect(reasons).toEqual([expect.stringContaining('cannot reach')]);
});

test('a node that never comes is named, with the reason', async () => {
  const waiting = waitForNodes(coordinatorOf([view('node_other')]), [NODE], {
    signal: AbortSignal.timeout(10_000),
    waitMsMax: 1,
  });
  await expect(waiting).rejects.toMatchObject({
    code: 'E_UNAVAILABLE',
    details: [expect.stringContaining('edge-1: cannot reach')],
  });
});
