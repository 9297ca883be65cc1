/** What becomes of cancelled work (G6), with every part a real process. */
import type { Envelope } from '@hypha/protocol';
import { expect, test } from 'vitest';
import { isAlive, nodeOfAllTests, until } from './testing/node-fixture.ts';

const fixture = await nodeOfAllTests();

/** Two steps, the second of which waits. */
async function submitHeld(name: string, signer = fixture.operator) {
  await fixture.sals.hold(`${name}-2`);
  const envelope = fixture.sign(
    `await container('${name}-1', {}); await container('${name}-2', {}); await container('${name}-3', {});`,
    { deployment: name },
    signer,
  );
  const run = await fixture.submit(envelope);
  return { run, envelope, tool: await fixture.untilHeld(`${name}-2`) };
}

const cancel = (envelope: Envelope, signer = fixture.operator) =>
  fixture.api.cancel({ envelope: fixture.signCancel(envelope, signer) });

async function expectUndone(run: string, name: string): Promise<void> {
  expect(await fixture.waitForEnd(run)).toMatchObject({
    state: 'cancelled',
    problem: { code: 'E_CANCELLED' },
    cancelRequestedAt: expect.any(Number),
  });
  expect(fixture.sals.things().filter((each) => each.startsWith(`${name}-`))).toEqual([]);
  const bodies = await fixture.bodiesOf(run);
  expect(bodies.filter(({ type }) => type === 'step-intent')).toHaveLength(2);
  const receipt = await fixture.receiptOf(run);
  expect(receipt).toMatchObject({ state: 'cancelled', code: 'E_CANCELLED', leftovers: [] });
  expect(receipt.cancelRequestedAt).toBeLessThanOrEqual(receipt.endedAt);
}

test('a running run loses the call in flight, is undone and says so in its receipt', async () => {
  const { run, envelope, tool } = await submitHeld('running');
  const answer = await cancel(envelope);
  expect(answer.runs).toEqual([{ run, node: fixture.node }]);
  expect((await fixture.api.run(run)).cancelRequestedAt).toEqual(expect.any(Number));
  await expectUndone(run, 'running');
  expect(isAlive(tool)).toBe(false);
});

test('a run that nobody has begun ends at once, and its job does nothing', async () => {
  const held = await submitHeld('turn');
  const envelope = fixture.sign(`await container('never', {});`, { deployment: 'turn' });
  const run = await fixture.submit(envelope);
  await cancel(envelope);
  expect(await fixture.api.run(run)).toMatchObject({ state: 'cancelled' });
  expect(await fixture.receiptOf(run)).toMatchObject({
    state: 'cancelled',
    startedAt: null,
    undone: 0,
  });
  await fixture.sals.letGoAll();
  expect(await fixture.waitForEnd(held.run)).toMatchObject({ state: 'succeeded' });
  expect(fixture.sals.things()).not.toContain('never');
});

test('a run that waits without a process is undone at once', async () => {
  const envelope = fixture.sign(`await container('asleep-1', {}); await sleep('1h');`, {
    deployment: 'asleep',
    limits: { wallMs: 7_200_000, resources: { milliCpus: 0, memoryBytes: 0, storageBytes: 1 } },
  });
  const run = await fixture.submit(envelope);
  await until('it waits', async () => (await fixture.api.run(run)).waitingUntil !== undefined);
  await cancel(envelope);
  expect(await fixture.waitForEnd(run)).toMatchObject({ state: 'cancelled' });
  expect(fixture.sals.things()).not.toContain('asleep-1');
});

test('a cancel that overtakes its work is kept through a crash, and the work does nothing', async () => {
  const envelope = fixture.sign(`await container('late', {});`, { deployment: 'late' });
  const sent = fixture.signCancel(envelope);
  expect(await fixture.api.cancel({ envelope: sent })).toMatchObject({ runs: [] });
  expect(await fixture.api.cancel({ envelope: sent })).toMatchObject({ runs: [], existing: true });
  await fixture.supervisor.kill('SIGKILL');
  await fixture.startSupervisor();
  const run = await fixture.submit(envelope);
  expect(await fixture.api.run(run)).toMatchObject({ state: 'cancelled' });
  expect(await fixture.receiptOf(run)).toMatchObject({ state: 'cancelled' });
  expect((await fixture.bodiesOf(run)).map(({ type }) => type)).toEqual(['accepted', 'finished']);
  expect(fixture.sals.things()).not.toContain('late');
});

test('a supervisor killed right after it said yes, and the runner with it, cancel all the same', async () => {
  const { run, envelope } = await submitHeld('crash');
  const pid = await fixture.runnerPid(await fixture.runnerOf(run));
  await cancel(envelope);
  await fixture.supervisor.kill('SIGKILL');
  if (isAlive(pid)) process.kill(pid, 'SIGKILL');
  await fixture.startSupervisor();
  await expectUndone(run, 'crash');
});

test('a runner that was away when its run was cancelled is told when it is back', async () => {
  const { run, envelope, tool } = await submitHeld('away');
  const pid = await fixture.runnerPid(await fixture.runnerOf(run));
  process.kill(pid, 'SIGSTOP');
  await cancel(envelope);
  await fixture.supervisor.kill('SIGKILL');
  process.kill(pid, 'SIGCONT');
  await fixture.startSupervisor();
  await expectUndone(run, 'away');
  expect(isAlive(tool)).toBe(false);
});

test('what is committed or over is not cancelled', async () => {
  const envelope = fixture.sign(`await container('done', {});`, { deployment: 'done' });
  const run = await fixture.submit(envelope);
  await fixture.waitForEnd(run);
  await expect(cancel(envelope)).rejects.toMatchObject({ code: 'E_TOO_LATE' });
  expect(await fixture.api.run(run)).toMatchObject({ state: 'succeeded' });
  expect(fixture.sals.things()).toContain('done');
});

test('the signer may cancel, and another only with a grant that says so', async () => {
  const [otto, lea] = [await fixture.addOperator(), await fixture.addOperator(['container'])];
  const { run, envelope } = await submitHeld('own', otto);
  await expect(cancel(envelope, lea)).rejects.toMatchObject({ code: 'E_SCOPE' });
  expect((await fixture.api.run(run)).cancelRequestedAt).toBeUndefined();
  await cancel(envelope, otto);
  await expectUndone(run, 'own');
});

test('an accepted cancel stands, whatever becomes of the key that signed it', async () => {
  const lea = await fixture.addOperator();
  const envelope = fixture.sign(`await container('stands', {});`, { deployment: 'stands' });
  await cancel(envelope, lea);
  const update = await fixture.change({ type: 'revoke', keyid: lea.keyid, reason: 'gone' });
  const other = fixture.sign(`return 1;`, { deployment: 'other' });
  const refused = fixture.api.cancel({
    envelope: fixture.signCancel(other, lea),
    authority: [update],
  });
  await expect(refused).rejects.toMatchObject({ code: 'E_KEY_REVOKED' });
  const run = await fixture.submit(envelope);
  expect(await fixture.api.run(run)).toMatchObject({ state: 'cancelled' });
  expect(fixture.sals.things()).not.toContain('stands');
});

test('a cancel from the coordinator takes the same way', async () => {
  const { run, envelope } = await submitHeld('routed');
  await fixture.coordinator.cancel({ envelope: fixture.signCancel(envelope) });
  await expectUndone(run, 'routed');
});

test('a cancel accepted in time is known after its time, and one that comes late is refused', async () => {
  const draft = { lifetimeSeconds: 10 };
  const sign = () => {
    const script = fixture.sign(`return 1;`, { deployment: 'expiry' });
    return fixture.signCancel(script, fixture.operator, draft);
  };
  const [envelope, late] = [sign(), sign()];
  expect(await fixture.api.cancel({ envelope })).toMatchObject({ runs: [] });
  const sentAt = performance.now();
  await until('it has expired', () => performance.now() - sentAt > 11_000);
  await expect(fixture.api.cancel({ envelope: late })).rejects.toMatchObject({ code: 'E_EXPIRED' });
  expect(await fixture.api.cancel({ envelope })).toMatchObject({ runs: [], existing: true });
});
