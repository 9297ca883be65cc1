import { open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { syncFolder } from '@hypha/sal';
import { expect, test, vi } from 'vitest';
import { failureOf } from './testing/failure.ts';
import { nodeOfEachTest } from './testing/node-of-each-test.ts';
import { PAGE, type ScratchNode, signal } from './testing/scratch-node.ts';

let node: ScratchNode;
nodeOfEachTest((made) => {
  node = made;
});

/** No room is left in the pool until this is disposed of. */
async function fillPool(): Promise<AsyncDisposable> {
  const { pool } = await node.host();
  const path = join(pool.root, 'big');
  await using undone = new AsyncDisposableStack();
  undone.defer(async () => {
    await rm(path, { force: true });
    await syncFolder(pool.root);
  });
  const file = await open(path, 'w');
  undone.defer(() => file.close());
  const chunk = Buffer.alloc(2 ** 20, 7);
  const isFull = (error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOSPC') throw error;
    return true;
  };
  while (!(await file.write(chunk).then(() => false, isFull)));
  await file.sync().catch(isFull);
  return undone.move();
}

test('a step that finds the pool full says so, and is undone', async () => {
  // Its image is there already.
  await node.ensure('one', PAGE);
  const before = await node.capture();
  await using _full = await fillPool();
  const step = await node.openStep('web', PAGE);
  const error = await failureOf(step.apply());
  expect(error).toMatchObject({ code: 'E_STORAGE', message: expect.stringContaining('full') });
  await step.undo();
  expect(await node.capture()).toEqual(before);
}, 110_000);

test('a node with a full pool can be halted', async () => {
  await node.ensure('web', PAGE);
  await using _full = await fillPool();
  const { resource } = await node.sal();
  await resource.halt?.(await node.record('web', PAGE), signal());
  expect(await node.capture()).toMatchObject({ runFolders: {}, runtime: {}, network: {} });
}, 110_000);

test('a second generation that fills the pool is undone all the same', async () => {
  await node.ensure('web', PAGE);
  const first = await node.current('web');
  const fills =
    'dd if=/dev/zero of=/data/big bs=1M; while true; do echo x >> /data/more; sleep 0.2; done';
  const step = await node.openStep('web', {
    command: ['/bin/sh', '-c', fills],
    health: { tcp: { port: 81 }, within: '8s' },
  });
  expect(await failureOf(step.apply())).toMatchObject({ code: 'E_HEALTH' });
  // What was deleted is free a little later: tried again, as the engine does.
  await vi.waitFor(() => step.undo(), { timeout: 30_000, interval: 500 });
  expect((await node.current('web')).id).toBe(first.id);
  expect(await node.observe('web', PAGE)).toMatchObject({ state: 'running', converged: true });
}, 110_000);
