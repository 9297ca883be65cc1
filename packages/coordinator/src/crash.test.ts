import { afterEach, beforeEach, expect, test } from 'vitest';
import { COMMITTED, journalOf, receiptOf, STARTED, SUCCEEDED } from './testing/fake-node.ts';
import { TestFleet } from './testing/test-fleet.ts';

let fleet: TestFleet;
beforeEach(async () => {
  fleet = await TestFleet.start();
});
afterEach(() => fleet.stop());

async function restart() {
  await fleet.coordinatorProcess.kill('SIGKILL');
  await fleet.startCoordinator();
}

test('killed after its 202 and before delivery, it delivers once it is back', async () => {
  const node = await fleet.addNode('waiting');
  const script = fleet.script({ deployment: 'killed', nodes: [node.id] });
  const accepted = await fleet.coordinator.submit({ envelope: script.envelope });
  await restart();
  const run = accepted.runs[0]?.run ?? '';
  expect(await fleet.coordinator.run(run)).toMatchObject({ state: 'accepted' });
  expect(await fleet.coordinator.submit({ envelope: script.envelope })).toEqual({
    ...accepted,
    existing: true,
  });
  await node.open();
  expect(await node.waitForRun(run)).toEqual(script.envelope);
});

test('killed after delivery and before the answer, it sends again and takes the answer once', async () => {
  const node = await fleet.addNode('answering');
  await node.open();
  const { run } = await fleet.submit({ deployment: 'killed', nodes: [node.id] });
  await node.waitForRun(run);
  await restart();
  await node.open();
  expect(await node.send({ type: 'accepted', messageId: run, run })).toEqual([{ status: 'ok' }]);
  await restart();
  const before = node.deliveries(run);
  await node.open();
  const next = await fleet.submit({ deployment: 'killed', nodes: [node.id], generation: 2 });
  await node.waitForRun(next.run);
  expect(node.deliveries(run)).toBe(before);
});

test('killed in the middle of a journal, it says what it lacks and ends whole', async () => {
  const node = await fleet.addNode('telling');
  const { script, run } = await fleet.submit({ deployment: 'killed', nodes: [node.id] });
  const journal = journalOf(node, run, script, STARTED, COMMITTED, SUCCEEDED);
  await node.send({ type: 'events', run, events: journal.slice(0, 2) });
  await restart();
  expect(await node.send({ type: 'events', run, events: journal.slice(3) })).toEqual([
    { status: 'want-events', seq: 3 },
  ]);
  const receipt = receiptOf(node, script, journal);
  expect(
    await node.send(
      { type: 'events', run, events: journal.slice(2) },
      { type: 'receipt', run, envelope: receipt },
    ),
  ).toEqual([{ status: 'ok' }, { status: 'ok' }]);
  await restart();
  expect(await fleet.coordinator.run(run)).toMatchObject({ state: 'succeeded' });
  expect((await fleet.coordinator.journal(run)).items).toEqual(journal);
  expect(await fleet.coordinator.receipt(run)).toEqual(receipt);
  expect(await fleet.coordinator.output(run)).toMatchObject({ output: { answer: 42 } });
});

test('a cordon survives a kill', async () => {
  const node = await fleet.addNode('kept');
  await fleet.coordinatorAs(fleet.admin).cordon(node.id);
  await restart();
  const { items } = await fleet.coordinator.listNodes();
  expect(items).toEqual([expect.objectContaining({ id: node.id, state: 'cordoned' })]);
});

test('killed while many submit at once, every 202 is kept and no run is doubled', async () => {
  const node = await fleet.addNode('busy');
  const kept: string[] = [];
  const submitted = Array.from({ length: 40 }, async (_, index) => {
    const { run } = await fleet.submit({ deployment: `many-${index}`, nodes: [node.id] });
    kept.push(run);
    if (kept.length === 10) fleet.coordinatorProcess.child.kill('SIGKILL');
  });
  await Promise.allSettled(submitted);
  await restart();
  expect(kept.length).toBeGreaterThanOrEqual(10);
  await node.open();
  for (const run of kept) await node.waitForRun(run);
  const { items } = await fleet.coordinator.listRuns({ limit: 500 });
  expect(new Set(items.map(({ run }) => run)).size).toBe(items.length);
  expect(items.map(({ run }) => run)).toEqual(expect.arrayContaining(kept));
});
