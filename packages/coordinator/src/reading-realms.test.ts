import type { CoordinatorClient, StreamEvent } from '@hypha/client';
import { RunView } from '@hypha/protocol';
import { generateKey } from '@hypha/protocol/node';
import { afterAll, beforeAll, expect, onTestFinished, test, vi } from 'vitest';
import type { FakeNode } from './testing/fake-node.ts';
import { TestFleet } from './testing/test-fleet.ts';

/** The coordinator reads the ledger every now and then. */
const SOON = { timeout: 10_000 };

let fleet: TestFleet;
let node: FakeNode;
/** May read realm `a`. */
let viewer: CoordinatorClient;
let runA: string;
let runB: string;
beforeAll(async () => {
  fleet = await TestFleet.start();
  node = await fleet.addNode('first');
  const { signer } = generateKey();
  await fleet.grant(signer, 'viewer', { name: 'viewer-a', realms: ['a'] });
  viewer = fleet.coordinatorAs(signer);
  await vi.waitFor(() => viewer.listRuns(), SOON);
  runA = await apply('a');
  runB = await apply('b');
});
afterAll(() => fleet.stop());

async function apply(realm: string, generation = 1): Promise<string> {
  return (await fleet.submit({ deployment: 'web', nodes: [node.id], generation, realm })).run;
}

test('a key that was granted something a moment ago reads, long before the next poll', async () => {
  const slow = await TestFleet.start({ 'ledger-poll-ms': 60_000 });
  onTestFinished(() => slow.stop());
  const { signer } = generateKey();
  const reader = slow.coordinatorAs(signer);
  await expect(reader.listRuns()).rejects.toMatchObject({ code: 'E_UNAUTHENTICATED' });
  await slow.grant(signer, 'viewer', { name: 'viewer-new', realms: ['a'] });
  await vi.waitFor(() => reader.listRuns(), SOON);
});

test('a list leaves out what the grant does not cover', async () => {
  const runsOf = async (deployment?: string) => {
    const { items } = await viewer.listRuns({ deployment });
    return items.map(({ run }) => run);
  };
  expect(await runsOf()).toEqual([runA]);
  expect(await runsOf('web')).toEqual([runA]);
  expect(await runsOf('a/web')).toEqual([runA]);
  expect(await runsOf('b/web')).toEqual([]);
  const { items } = await viewer.listDeployments();
  expect(items.map(({ realm }) => realm)).toEqual(['a']);
  expect((await fleet.coordinator.listRuns()).items).toHaveLength(2);
});

test('one run or deployment of another realm is answered like one that is not there', async () => {
  expect(await viewer.run(runA)).toMatchObject({ realm: 'a' });
  expect(await viewer.deployment('a', 'web')).toMatchObject({ realm: 'a' });
  const absent = `run_${'a'.repeat(26)}`;
  const problemOf = async (run: string) => {
    const error = await viewer.run(run).catch((thrown: unknown) => thrown);
    return JSON.stringify(error).replaceAll(run, 'RUN');
  };
  expect(await problemOf(runB)).toEqual(await problemOf(absent));
  const signal = AbortSignal.timeout(10_000);
  const refused = [
    () => viewer.run(runB),
    () => viewer.journal(runB),
    () => viewer.output(runB),
    () => viewer.envelope(runB),
    () => viewer.receipt(runB),
    () => viewer.runEvents(runB, { signal }).next(),
    () => viewer.deployment('b', 'web'),
    () => viewer.listRevisions('b', 'web'),
  ];
  for (const read of refused) await expect(read()).rejects.toMatchObject({ code: 'E_NOT_FOUND' });
});

test('the stream of changes tells no run of another realm', async () => {
  const end = new AbortController();
  const events: StreamEvent[] = [];
  const done = (async () => {
    for await (const event of viewer.events({ signal: end.signal })) events.push(event);
  })();
  const told = () =>
    events
      .filter(({ event }) => event === 'run')
      .map(({ data }) => RunView.parse(JSON.parse(data)).realm);
  let generation = 1;
  // Only what comes after the stream was opened is told: until then, more of both.
  await vi.waitFor(
    async () => {
      generation++;
      await apply('b', generation);
      await apply('a', generation);
      expect(told()).not.toEqual([]);
    },
    { ...SOON, interval: 100 },
  );
  end.abort();
  await done;
  expect(new Set(told())).toEqual(new Set(['a']));
});

test('a viewer places nothing, and an operator only in its realms', async () => {
  const ask = {
    realm: 'b',
    count: 1,
    resources: { milliCpus: 0, memoryBytes: 0, storageBytes: 0 },
  };
  await expect(viewer.propose(ask)).rejects.toMatchObject({
    code: 'E_FORBIDDEN',
    where: { path: 'operator,admin' },
  });
  const { signer } = generateKey();
  await fleet.grant(signer, 'operator', { name: 'operator-a', realms: ['a'] });
  await vi.waitFor(() => fleet.coordinatorAs(signer).listRuns(), SOON);
  await expect(fleet.coordinatorAs(signer).propose(ask)).rejects.toMatchObject({
    code: 'E_FORBIDDEN',
    where: { path: 'realm' },
  });
});

test('a revoked key reads nothing, nor one whose time is over', async () => {
  const { signer } = generateKey();
  const old = generateKey().signer;
  const nowSeconds = Math.floor(Date.now() / 1000);
  const past = { notBefore: nowSeconds - 7200, notAfter: nowSeconds - 3600 };
  await fleet.grant(old, 'viewer', { name: 'old', ...past });
  await fleet.grant(signer, 'viewer', { name: 'short' });
  const reader = fleet.coordinatorAs(signer);
  await vi.waitFor(() => reader.listRuns(), SOON);
  await fleet.change({ type: 'revoke', keyid: signer.keyid, reason: 'gone' });
  await vi.waitFor(
    () => expect(reader.listRuns()).rejects.toMatchObject({ code: 'E_KEY_REVOKED' }),
    SOON,
  );
  await expect(fleet.coordinatorAs(old).listRuns()).rejects.toMatchObject({
    code: 'E_KEY_EXPIRED',
  });
});

test('a node sees itself in the list of nodes and reads nothing else', async () => {
  await fleet.addNode('second');
  await vi.waitFor(
    async () => expect((await fleet.coordinator.listNodes()).items).toHaveLength(2),
    SOON,
  );
  expect((await node.client.listNodes()).items).toMatchObject([{ id: node.id }]);
  await expect(node.client.listRuns()).rejects.toMatchObject({ code: 'E_FORBIDDEN' });
});
