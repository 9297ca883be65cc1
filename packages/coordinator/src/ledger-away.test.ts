import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { TestFleet } from './testing/test-fleet.ts';

let fleet: TestFleet;
beforeEach(async () => {
  fleet = await TestFleet.start();
});
afterEach(() => fleet.stop());

async function knownNode(name: string) {
  const node = await fleet.addNode(name);
  await node.open();
  await vi.waitFor(async () => {
    const { items } = await fleet.coordinator.listNodes();
    expect(items).toContainEqual(expect.objectContaining({ id: node.id, state: 'ready' }));
  });
  return node;
}

async function submitAndTake(node: Awaited<ReturnType<typeof knownNode>>, deployment: string) {
  const { run } = await fleet.submit({ deployment, nodes: [node.id] });
  await node.waitForRun(run);
}

test('without its ledger a coordinator accepts and delivers, also after it was killed', async () => {
  const node = await knownNode('alone');
  await fleet.ledgerProcess.kill('SIGKILL');
  await submitAndTake(node, 'one');
  await fleet.coordinatorProcess.kill('SIGKILL');
  await fleet.startCoordinator();
  await node.open();
  await submitAndTake(node, 'two');
});

test('a ledger that hangs holds up a submission for a moment only', async () => {
  const node = await knownNode('patient');
  fleet.ledgerProcess.child.kill('SIGSTOP');
  const since = Date.now();
  await submitAndTake(node, 'hung');
  expect(Date.now() - since).toBeLessThan(8_000);
  await fleet.coordinator.listNodes();
});

test('updates stapled to a submission are verified and used while the ledger is away', async () => {
  const node = await knownNode('stapled');
  await fleet.ledgerProcess.kill('SIGKILL');
  const revocation = fleet.signChange({
    type: 'revoke',
    keyid: fleet.admin.keyid,
    reason: 'left',
  });
  const { envelope } = fleet.script({ deployment: 'stapled', nodes: [node.id] });
  await expect(fleet.coordinator.submit({ envelope })).rejects.toMatchObject({
    code: 'E_STALE_VIEW',
  });
  const [genesis] = fleet.authority.updates;
  if (genesis === undefined) throw new Error('no genesis');
  const forged = { ...revocation, signatures: genesis.signatures };
  await expect(fleet.coordinator.submit({ envelope, authority: [forged] })).rejects.toMatchObject({
    code: 'E_SIG_INVALID',
  });
  await fleet.coordinator.submit({ envelope, authority: [genesis, revocation] });
  // The node is told too, before the submission it needs it for.
  const types = await vi.waitFor(() => {
    const last = node.received.slice(-2).map(({ type }) => type);
    expect(last).toEqual(['authority', 'submission']);
    return last;
  });
  expect(types).toHaveLength(2);
});

test('a ledger that comes back is followed again', async () => {
  await knownNode('first');
  await fleet.ledgerProcess.kill('SIGKILL');
  await vi.waitFor(() => expect(fleet.coordinatorProcess.log()).toContain('ledger is away'), {
    timeout: 10_000,
  });
  await fleet.startLedger();
  await fleet.addNode('second');
  await vi.waitFor(
    async () => {
      const { items } = await fleet.coordinator.listNodes();
      expect(items.map(({ name }) => name).sort()).toEqual(['first', 'second']);
    },
    { timeout: 15_000 },
  );
});
