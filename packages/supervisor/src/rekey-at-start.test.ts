import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { openNodeKeys } from '@hypha/identity';
import { generateKey, writePrivateFile } from '@hypha/protocol/node';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { NodeFixture, until } from './testing/node-fixture.ts';

let fixture: NodeFixture;
let old = '';
beforeEach(async () => {
  fixture = await NodeFixture.start();
  old = fixture.node;
});
afterEach(async () => {
  await fixture[Symbol.asyncDispose]();
});

const nextFile = () => join(fixture.identityFolder, 'identity.next.pem');
const putNextKey = () => writePrivateFile(nextFile(), generateKey().pem);
const currentId = async () => (await openNodeKeys(fixture.identityFolder, Date.now)).nodeId;

async function restart(): Promise<void> {
  await fixture.supervisor.kill('SIGTERM');
  await fixture.startSupervisor();
  await until('the node is back', () => fixture.isReady());
}

test('a next key is taken only once all that the old one signed is told; what is there goes on', async () => {
  await fixture.stopFleet();
  const run = await fixture.submit(fixture.sign(`await volume('data', { size: 5 });`));
  await fixture.waitForEnd(run);
  await putNextKey();
  await restart();
  // The ledger was away: it stays who it is, with its resources, and still tries.
  expect(await currentId()).toBe(old);
  expect(fixture.supervisor.log).toContain('new node key waits for the next start');
  await fixture.startLedger();
  await fixture.startCoordinator();
  await until('another key is its own', async () => {
    await restart();
    return (await currentId()) !== old;
  });
  fixture.node = await currentId();
  expect((await fixture.ledger.listEntries({ kind: 'receipt', run })).items).toHaveLength(1);
  expect(fixture.sals.effects()).toEqual(['make data']);

  const later = await fixture.submit(fixture.sign(`await volume('data', { size: 5 });`));
  expect(await fixture.waitForEnd(later)).toMatchObject({ state: 'succeeded' });
  expect(fixture.sals.effects()).toEqual(['make data']);
  const [before, after] = [await fixture.receiptOf(run), await fixture.receiptOf(later)];
  expect(before).toMatchObject({ node: old, seq: 1 });
  expect(after).toMatchObject({ node: fixture.node, seq: 2 });
  expect(after.prev).not.toBeNull();
  await until('the ledger has the receipt of the new key', async () => {
    return (await fixture.ledger.listEntries({ kind: 'receipt', run: later })).items.length === 1;
  });
  expect(await fixture.ledger.node(old)).toMatchObject({ replacedBy: fixture.node });
});

test('a next key that the ledger refuses leaves the node who it is', async () => {
  await fixture.change({ type: 'revoke-node', node: old, reason: 'stolen' });
  await putNextKey();
  await restart();
  expect(await currentId()).toBe(old);
  expect(fixture.supervisor.log).toContain('node key stays as it was');
  await rm(nextFile());
});
