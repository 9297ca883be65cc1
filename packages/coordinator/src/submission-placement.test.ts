import { generateKey } from '@hypha/protocol/node';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { COMMITTED, type FakeNode, journalOf, STARTED, SUCCEEDED } from './testing/fake-node.ts';
import { TestFleet } from './testing/test-fleet.ts';

const GIB = 1024 ** 3;
const RESOURCES = { milliCpus: 2000, memoryBytes: GIB, storageBytes: GIB };
let fleet: TestFleet;
let a: FakeNode;
let b: FakeNode;
let c: FakeNode;
beforeAll(async () => {
  fleet = await TestFleet.start();
  a = await fleet.addNode('a', { labels: { zone: 'eu' } });
  b = await fleet.addNode('b', { labels: { zone: 'eu' } });
  c = await fleet.addNode('c', { labels: { zone: 'us' }, realms: ['other'] });
  await Promise.all([a.open(), b.open(), c.open()]);
});
afterAll(() => fleet.stop());

async function place(
  deployment: string,
  nodes: readonly FakeNode[],
  count: number,
  generation = 1,
  resources = RESOURCES,
) {
  const { runs } = await fleet.submit({
    deployment,
    generation,
    nodes: nodes.map(({ id }) => id),
    count,
    limits: { resources },
  });
  return runs.map(({ node }) => node);
}

/** Under load the coordinator goes by an older view for a moment: these tests are about the newest. */
async function untilSeen(node: FakeNode, milliCpus: number): Promise<void> {
  await vi.waitFor(
    async () => {
      const { items } = await fleet.coordinator.listNodes({ limit: 500 });
      expect(items.find(({ id }) => id === node.id)?.free.milliCpus).toBe(milliCpus);
    },
    { timeout: 20_000, interval: 100 },
  );
}

test('a revision goes to as many of its candidates as it asks for, and stays where it is', async () => {
  const [first] = await place('sticky', [a, b], 1);
  // The other one is emptier now.
  expect(await place('sticky', [a, b], 1, 2)).toEqual([first]);
  expect(await place('elsewhere', [a, b], 1)).not.toEqual([first]);
});

test('a revision goes to no node it does not name', async () => {
  expect(await place('named', [b], 1)).toEqual([b.id]);
});

test('too few fitting nodes: a reason for every candidate, and nothing kept', async () => {
  await expect(place('few', [a, b, c], 3)).rejects.toMatchObject({
    code: 'E_NO_PLACEMENT',
    details: {
      asked: 3,
      fit: 2,
      nodes: [expect.objectContaining({ name: 'c', code: 'E_AUDIENCE' })],
    },
  });
  expect((await fleet.coordinator.listRuns({ deployment: 'few' })).items).toEqual([]);
});

test('what was sent since the last report is not given away twice', async () => {
  const d = await fleet.addNode('d', { free: { ...RESOURCES, milliCpus: 3000 } });
  await untilSeen(d, 3000);
  expect(await place('one', [d], 1)).toEqual([d.id]);
  await expect(place('two', [d], 1)).rejects.toMatchObject({
    details: { nodes: [{ code: 'E_CAPACITY', reason: expect.stringContaining('free 1000') }] },
  });
  // What it holds was not in its report: it is not free a second time.
  await expect(place('one', [d], 1, 2, { ...RESOURCES, milliCpus: 4000 })).rejects.toMatchObject({
    code: 'E_NO_PLACEMENT',
  });
  // The next revision of what it holds takes the place of the one before.
  expect(await place('one', [d], 1, 2)).toEqual([d.id]);
});

test('a run that has just ended is not held against its node: the next report is waited for', async () => {
  const f = await fleet.addNode('f', { free: RESOURCES });
  const limits = { resources: RESOURCES };
  const { script, run } = await fleet.submit({ deployment: 'done', nodes: [f.id], limits });
  await expect(place('during', [f], 1)).rejects.toMatchObject({ code: 'E_NO_PLACEMENT' });

  const events = journalOf(f, run, script, STARTED, COMMITTED, SUCCEEDED);
  expect(await f.send({ type: 'events', run, events })).toEqual([{ status: 'ok' }]);
  const [placed] = await Promise.all([place('after', [f], 1), fleet.report(f, RESOURCES)]);
  expect(placed).toEqual([f.id]);
});

test('a node that ended a run and has no room all the same is refused in the end', async () => {
  const g = await fleet.addNode('g', { free: RESOURCES });
  const limits = { resources: RESOURCES };
  const { script, run } = await fleet.submit({ deployment: 'big', nodes: [g.id], limits });
  const events = journalOf(g, run, script, STARTED, COMMITTED, SUCCEEDED);
  await g.send({ type: 'events', run, events });
  await fleet.report(g, { ...RESOURCES, milliCpus: 0 });
  await untilSeen(g, 0);
  await expect(place('more', [g], 1)).rejects.toMatchObject({
    code: 'E_NO_PLACEMENT',
    details: { nodes: [{ code: 'E_CAPACITY' }] },
  });
});

test('a cordoned node gets no new work until it is uncordoned, but a destroy', async () => {
  const e = await fleet.addNode('e');
  expect(await place('kept', [e], 1)).toEqual([e.id]);
  expect(await fleet.coordinatorAs(fleet.admin).cordon(e.id)).toMatchObject({ state: 'cordoned' });
  await expect(place('kept', [e], 1, 2)).rejects.toMatchObject({
    details: { nodes: [{ reason: expect.stringContaining('uncordon') }] },
  });
  const destroy = fleet.script({
    deployment: 'kept',
    nodes: [e.id],
    generation: 3,
    mode: 'destroy',
  });
  expect(await fleet.coordinator.submit({ envelope: destroy.envelope })).toMatchObject({
    runs: [{ node: e.id }],
  });
  expect(await fleet.coordinatorAs(fleet.admin).uncordon(e.id)).toMatchObject({ id: e.id });
  expect(await place('kept', [e], 1, 4)).toEqual([e.id]);
});

test('cordon asks for an admin who has a say about the node', async () => {
  const elsewhere = generateKey().signer;
  await fleet.grant(elsewhere, 'admin', { nodes: [a.id] });
  const as = (signer: typeof elsewhere) => fleet.coordinatorAs(signer);
  await vi.waitFor(() =>
    expect(as(elsewhere).cordon(b.id)).rejects.toMatchObject({ code: 'E_FORBIDDEN' }),
  );
  for (const signer of [a.signer, fleet.operator]) {
    await expect(as(signer).cordon(b.id)).rejects.toMatchObject({ code: 'E_FORBIDDEN' });
  }
  expect(await as(fleet.admin).cordon(b.id)).toMatchObject({ state: 'cordoned' });
  expect(await as(fleet.admin).uncordon(b.id)).toMatchObject({ state: 'ready' });
  await expect(as(fleet.admin).cordon(`node_${'z'.repeat(32)}`)).rejects.toMatchObject({
    code: 'E_NOT_FOUND',
  });
});

test('a proposal names nodes by labels, best first, with a reason for all others', async () => {
  const proposal = await fleet.coordinator.propose({
    realm: 'default',
    count: 1,
    labels: { zone: 'eu' },
    resources: RESOURCES,
    nodes: ['a', b.id, 'c'],
  });
  expect(proposal.nodes).toHaveLength(1);
  expect(proposal.refused.map(({ name }) => name)).toContain('c');
  expect(proposal.refused.every(({ reason }) => reason.length > 0)).toBe(true);
});

test('a proposal that cannot be made says why for every node', async () => {
  await expect(
    fleet.coordinator.propose({
      realm: 'default',
      count: 3,
      labels: { zone: 'eu' },
      resources: RESOURCES,
      nodes: ['a', 'b', 'c'],
    }),
  ).rejects.toMatchObject({
    code: 'E_NO_PLACEMENT',
    details: { asked: 3, fit: 2, nodes: [{ name: 'c' }] },
  });
  await expect(
    fleet.coordinator.propose({ realm: 'default', count: 1, resources: RESOURCES, nodes: ['x'] }),
  ).rejects.toMatchObject({ code: 'E_NOT_FOUND', where: { path: 'nodes.0' } });
});
