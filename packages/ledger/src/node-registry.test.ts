import { expect, test } from 'vitest';
import { z } from 'zod';
import { Machine, startTestLedger } from './testing/ledger-fixture.ts';

test('keeps the newest report and skips those it has', async () => {
  await using t = await startTestLedger();
  const machine = new Machine();
  await t.enrol(machine);
  const node = t.clientOf(machine);
  const at = t.fleet.nowMs();
  const reports = [1, 2, 3].map((seq) => machine.report(seq, at));
  expect(await node.report(machine.id, reports)).toEqual({ seq: 3 });
  expect(await node.report(machine.id, reports)).toEqual({ seq: 3 });
  expect(await node.report(machine.id, [machine.report(2, at, { bootId: 'stale' })])).toEqual({
    seq: 3,
  });
  expect(
    await node.report(machine.id, [machine.report(9, at, { bootId: 'boot-2', milliCpus: 7 })]),
  ).toEqual({ seq: 9 });
  expect(await t.client.node(machine.id)).toMatchObject({
    bootId: 'boot-2',
    uptimeMs: 9000,
    authoritySeq: 0,
    free: { milliCpus: 7 },
  });
});

test('refuses a batch that is not in order', async () => {
  await using t = await startTestLedger();
  const machine = new Machine();
  await t.enrol(machine);
  const batch = [machine.report(2, 1), machine.report(1, 1)];
  await expect(t.clientOf(machine).report(machine.id, batch)).rejects.toMatchObject({
    code: 'E_REQUEST',
    where: { path: 'reports.1' },
  });
  const view = await t.client.node(machine.id);
  expect(view.lastReportAt).toBeNull();
  expect(view).not.toHaveProperty('authoritySeq');
});

test('takes reports only from the node they are of', async () => {
  await using t = await startTestLedger();
  const machine = new Machine();
  const other = new Machine();
  await t.enrol(machine, { name: 'edge-1' });
  await t.enrol(other, { name: 'edge-2' });
  const report = [machine.report(1, 1)];
  await expect(t.client.report(machine.id, report)).rejects.toMatchObject({
    code: 'E_FORBIDDEN',
  });
  await expect(t.clientOf(other).report(machine.id, report)).rejects.toMatchObject({
    code: 'E_FORBIDDEN',
  });
  await expect(t.clientOf(other).report(other.id, report)).rejects.toMatchObject({
    code: 'E_UNKNOWN_KEY',
  });
  await expect(t.clientOf(new Machine()).report(machine.id, report)).rejects.toMatchObject({
    code: 'E_UNAUTHENTICATED',
  });
});

test('calls a node unreachable after three silent intervals, and ready again at its next report', async () => {
  await using t = await startTestLedger();
  const machine = new Machine();
  await t.enrol(machine);
  t.advance(3_100);
  expect((await t.client.node(machine.id)).state).toBe('unreachable');
  expect((await t.client.listNodes({ state: 'ready' })).items).toEqual([]);
  expect((await t.client.listNodes({ state: 'unreachable' })).items).toHaveLength(1);
  await t.clientOf(machine).report(machine.id, [machine.report(1, t.fleet.nowMs())]);
  expect((await t.client.node(machine.id)).state).toBe('ready');
  expect((await t.client.listNodes({ state: 'unreachable' })).items).toEqual([]);
});

test('a revoked node may do nothing more', async () => {
  await using t = await startTestLedger();
  const machine = new Machine();
  await t.enrol(machine);
  const node = t.clientOf(machine);
  await t.fleet.append(t.client, { type: 'revoke-node', node: machine.id, reason: 'stolen' });
  expect((await t.client.node(machine.id)).state).toBe('revoked');
  expect((await t.client.listNodes({ state: 'revoked' })).items).toHaveLength(1);
  await expect(node.report(machine.id, [machine.report(1, 1)])).rejects.toMatchObject({
    code: 'E_UNAUTHENTICATED',
  });
  await expect(node.appendEntry(machine.receipt(1, 'a'.repeat(64)).envelope)).rejects.toMatchObject(
    { code: 'E_KEY_REVOKED' },
  );
});

test('lists by every label given, page by page', async () => {
  await using t = await startTestLedger();
  for (const [name, zone, disk] of [
    ['a', 'attic', 'ssd'],
    ['b', 'attic', 'hdd'],
    ['c', 'cellar', 'ssd'],
    ['d', 'attic', 'ssd'],
  ] as const) {
    await t.enrol(new Machine(), { name, labels: { zone, disk } });
  }
  const labels = { zone: 'attic', disk: 'ssd' };
  const first = await t.client.listNodes({ labels, limit: 1 });
  expect(first.items.map(({ name }) => name)).toEqual(['a']);
  const second = await t.client.listNodes({
    labels,
    limit: 1,
    ...(first.nextCursor === null ? {} : { cursor: first.nextCursor }),
  });
  expect(second.items.map(({ name }) => name)).toEqual(['d']);
  expect(second.nextCursor).toBeNull();
  await expect(
    t.client.http.request({
      method: 'GET',
      path: '/v1/nodes',
      query: { label: 'zone' },
      answer: z.unknown(),
    }),
  ).rejects.toMatchObject({ code: 'E_REQUEST', where: { path: 'query.label' } });
});
