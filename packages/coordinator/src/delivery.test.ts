import { checkpointOrigin, nodeIdOf, verifyCheckpoint } from '@hypha/protocol';
import { generateKey, nodeVerifier } from '@hypha/protocol/node';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { journalOf, STARTED } from './testing/fake-node.ts';
import { TestFleet } from './testing/test-fleet.ts';

let fleet: TestFleet;
beforeAll(async () => {
  fleet = await TestFleet.start({ 'expiry-grace-ms': 0 });
});
afterAll(() => fleet.stop());

async function submitted(deployment: string, lifetimeSeconds = 900) {
  const node = await fleet.addNode(deployment);
  const { script, run } = await fleet.submit({ deployment, nodes: [node.id], lifetimeSeconds });
  return { node, script, run };
}

test('a submission waits for its node and comes after the authority', async () => {
  const { node, script, run } = await submitted('late');
  await node.open();
  expect(await node.waitForRun(run)).toEqual(script.envelope);
  const length = fleet.authority.seq + 1;
  expect(node.received[0]).toMatchObject({ type: 'authority', authority: { length } });
});

test('the newest head of the log comes with the authority and with every submission', async () => {
  const { node, run } = await submitted('fresh');
  await node.open();
  await node.waitForRun(run);
  const [authority, submission] = node.received;
  const publicKey = fleet.authority.ledgerKey?.publicKey ?? new Uint8Array();
  const origin = checkpointOrigin(fleet.authority.genesisHash);
  const notes = [
    authority?.type === 'authority' ? authority.checkpoint : undefined,
    submission?.type === 'submission' ? submission.submission.checkpoint : undefined,
  ];
  for (const note of notes) {
    const head = verifyCheckpoint(nodeVerifier, note ?? '', { origin, publicKey });
    expect(head.authority.head).toBe(fleet.authority.head);
  }
});

test('an open inbox gets a new submission at once', async () => {
  const node = await fleet.addNode('there');
  await node.open();
  const { script, run } = await fleet.submit({ deployment: 'there', nodes: [node.id] });
  expect(await node.waitForRun(run)).toEqual(script.envelope);
});

test('a message is sent again until it is answered, and then never again', async () => {
  const { node, run } = await submitted('deaf');
  await node.open();
  await vi.waitFor(() => expect(node.deliveries(run)).toBeGreaterThan(1), { timeout: 10_000 });
  await node.acknowledge(run);
  const count = node.deliveries(run);
  await node.close();
  await node.open();
  const other = await fleet.submit({ deployment: 'deaf', nodes: [node.id], generation: 2 });
  await node.waitForRun(other.run);
  expect(node.deliveries(run)).toBe(count);
});

test('a node that comes back gets what it did not answer', async () => {
  const { node, run } = await submitted('back');
  await node.open();
  await vi.waitFor(() => expect(node.deliveries(run)).toBe(2), { timeout: 5_000 });
  await node.close();
  await node.open();
  await vi.waitFor(() => expect(node.deliveries(run)).toBe(3), { timeout: 10_000 });
});

test('several submissions come in the order they were accepted', async () => {
  const node = await fleet.addNode('ordered');
  const runs: string[] = [];
  for (let generation = 1; generation <= 20; generation++) {
    const { run } = await fleet.submit({ deployment: 'ordered', nodes: [node.id], generation });
    runs.push(run);
  }
  await node.open();
  await node.waitForRun(runs[19] ?? '');
  const came = node.received.flatMap((each) => (each.type === 'submission' ? [each.run] : []));
  expect(came.slice(0, 20)).toEqual(runs);
});

test('a refusal makes the run rejected with the problem of the node', async () => {
  const { node, run } = await submitted('refusing');
  await node.open();
  await node.waitForRun(run);
  const problem = {
    type: 'urn:hypha:error:E_CAPACITY',
    title: 'full',
    status: 409,
    detail: 'no room',
    code: 'E_CAPACITY',
    hint: 'less',
  };
  const refusal = { type: 'refused', messageId: run, run, problem } as const;
  expect(await node.send(refusal, refusal)).toEqual([{ status: 'ok' }, { status: 'ok' }]);
  expect(await fleet.coordinator.run(run)).toMatchObject({ state: 'rejected', problem });
});

test('a run nobody took before exp is rejected, until its node says otherwise', async () => {
  const { node, script, run } = await submitted('expiring', 2);
  await vi.waitFor(
    async () =>
      expect(await fleet.coordinator.run(run)).toMatchObject({
        state: 'rejected',
        problem: { code: 'E_EXPIRED', hint: expect.stringContaining('hypha apply') },
        endedAt: expect.any(Number),
      }),
    { timeout: 10_000 },
  );
  await node.open();
  const journal = journalOf(node, run, script, STARTED);
  expect(await node.send({ type: 'events', run, events: journal })).toEqual([{ status: 'ok' }]);
  expect(await fleet.coordinator.run(run)).toMatchObject({
    state: 'running',
    problem: null,
    endedAt: null,
  });
  expect(node.deliveries(run)).toBe(0);
});

test('an answer after the expiry takes the rejection back', async () => {
  const { node, run } = await submitted('slow', 2);
  await node.open();
  await vi.waitFor(async () => expect((await fleet.coordinator.run(run)).state).toBe('rejected'), {
    timeout: 10_000,
  });
  await node.acknowledge(run);
  expect(await fleet.coordinator.run(run)).toMatchObject({ state: 'accepted', problem: null });
});

test('a newer connection of the same node takes the inbox over', async () => {
  const { node, run } = await submitted('twice');
  await node.open();
  const older = node.received.length;
  const end = new AbortController();
  const messages = node.client.inbox(node.id, { signal: end.signal });
  await messages.next();
  await vi.waitFor(() => expect(node.lost).toBe('ended'));
  expect(node.received.length).toBeGreaterThanOrEqual(older);
  for await (const { id } of messages) if (id === run) break;
  end.abort();
});

test('a new authority update is forwarded to open inboxes', async () => {
  const node = await fleet.addNode('informed');
  await node.open();
  const granted = await fleet.grant(generateKey().signer, 'viewer');
  await vi.waitFor(
    () => expect(node.received.at(-1)).toMatchObject({ type: 'authority', authority: [granted] }),
    { timeout: 10_000 },
  );
});

test('a revoked node loses its inbox and does not get it back', async () => {
  const node = await fleet.addNode('evil');
  await node.open();
  await fleet.change({ type: 'revoke-node', node: node.id, reason: 'stolen' });
  await vi.waitFor(() => expect(node.lost).toBe('ended'), { timeout: 10_000 });
  await expect(node.open()).rejects.toMatchObject({ code: 'E_UNAUTHENTICATED' });
  await expect(fleet.submit({ deployment: 'evil', nodes: [node.id] })).rejects.toMatchObject({
    code: 'E_NO_PLACEMENT',
    details: { nodes: [{ code: 'E_KEY_REVOKED' }] },
  });
});

test('a node that another key has replaced loses its inbox, its outbox and its work to that one', async () => {
  const node = await fleet.addNode('renewed');
  await node.open();
  const next = await fleet.addNode('renewed', { replaces: node });
  await vi.waitFor(() => expect(node.lost).toBe('ended'), { timeout: 10_000 });
  await expect(node.open()).rejects.toMatchObject({ code: 'E_UNAUTHENTICATED' });
  await expect(node.acknowledge(`run_${'a'.repeat(26)}`)).rejects.toMatchObject({
    code: 'E_UNAUTHENTICATED',
  });
  await next.open();
  const views = (await fleet.coordinator.listNodes({ limit: 500 })).items;
  expect(views.find(({ id }) => id === node.id)).toMatchObject({
    state: 'revoked',
    replacedBy: next.id,
  });
  expect(views.filter(({ name }) => name === 'renewed')).toMatchObject([
    { id: next.id, state: 'ready' },
  ]);
  const submit = (deployment: string, id: string) => fleet.submit({ deployment, nodes: [id] });
  await expect(submit('renewed', node.id)).rejects.toMatchObject({
    details: { nodes: [{ code: 'E_KEY_REVOKED' }] },
  });
  expect((await submit('renewed', next.id)).runs).toHaveLength(1);
});

test('a cordon stays on a machine that is given a new key', async () => {
  const admin = fleet.coordinatorAs(fleet.admin);
  const node = await fleet.addNode('kept-off');
  await admin.cordon(node.id);
  const next = await fleet.addNode('kept-off', { replaces: node });
  await next.open();
  const stateOf = async (id: string) =>
    (await admin.listNodes({ limit: 500 })).items.find((view) => view.id === id)?.state;
  await vi.waitFor(async () => expect(await stateOf(next.id)).toBe('cordoned'), {
    timeout: 10_000,
  });
  await fleet.coordinatorProcess.kill('SIGKILL');
  await fleet.startCoordinator();
  expect(await stateOf(next.id)).toBe('cordoned');
  await admin.uncordon(next.id);
  await next.open();
  await vi.waitFor(async () => expect(await stateOf(next.id)).toBe('ready'), { timeout: 10_000 });
});

test('a node that waits to be admitted is nobody here', async () => {
  const { signer } = generateKey();
  const id = nodeIdOf(nodeVerifier, signer.publicKey);
  await expect(fleet.requestToJoin(signer)).rejects.toMatchObject({ code: 'E_PENDING' });
  expect((await fleet.ledger.listNodes({ state: 'pending' })).items).toMatchObject([{ id }]);
  const client = fleet.coordinatorAs(signer);
  await expect(client.listNodes()).rejects.toMatchObject({ code: 'E_UNAUTHENTICATED' });
  await expect(
    client.inbox(id, { signal: AbortSignal.timeout(10_000) }).next(),
  ).rejects.toMatchObject({ code: 'E_UNAUTHENTICATED' });
  await expect(fleet.submit({ deployment: 'early', nodes: [id] })).rejects.toMatchObject({
    code: 'E_NO_PLACEMENT',
  });
});
