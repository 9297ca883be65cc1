import { CoordinatorClient } from '@hypha/client';
import { type Envelope, type JournalBody, runIdOf, signScript } from '@hypha/protocol';
import { generateKey, nodeVerifier } from '@hypha/protocol/node';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import {
  COMMITTED,
  digestOfEnvelope,
  FakeNode,
  journalOf,
  receiptOf,
  STARTED,
  SUCCEEDED,
} from './testing/fake-node.ts';
import { TestFleet } from './testing/test-fleet.ts';

let fleet: TestFleet;
let node: FakeNode;
let other: FakeNode;
beforeAll(async () => {
  fleet = await TestFleet.start();
  node = await fleet.addNode('first');
  other = await fleet.addNode('second');
});
afterAll(() => fleet.stop());

const OK = { status: 'ok' };
const refusedWith = (code: string) => ({
  status: 'refused',
  problem: expect.objectContaining({ code }),
});

async function submitted(deployment: string) {
  const { script, run } = await fleet.submit({ deployment, nodes: [node.id] });
  const journal = journalOf(node, run, script, STARTED, COMMITTED, SUCCEEDED);
  return { script, run, journal };
}

/** A run only its node knows: it was submitted there. */
function submittedToNode(deployment: string, generation = 1) {
  const script = fleet.script({ deployment, nodes: [node.id, other.id], count: 1, generation });
  const run = journalRun(script.envelope);
  return { script, run, journal: journalOf(node, run, script, STARTED, COMMITTED, SUCCEEDED) };
}

function journalRun(envelope: Envelope): string {
  return runIdOf(nodeVerifier, digestOfEnvelope(envelope), node.id);
}

test('the journal of a node becomes the run readers see', async () => {
  const { run, journal } = await submitted('folded');
  const states: string[] = [];
  for (const event of journal) {
    expect(await node.send({ type: 'events', run, events: [event] })).toEqual([OK]);
    states.push((await fleet.coordinator.run(run)).state);
  }
  expect(states).toEqual(['accepted', 'running', 'committed', 'succeeded']);
  expect(await fleet.coordinator.run(run)).toMatchObject({
    acceptedAt: journal[0]?.at,
    startedAt: journal[1]?.at,
    endedAt: journal[3]?.at,
  });
  expect(await fleet.coordinator.deployment('default', 'folded')).toMatchObject({
    state: 'succeeded',
  });
});

test('a run that only sleeps says until when, in lists too, and no longer once it works', async () => {
  const { script, run } = await fleet.submit({ deployment: 'asleep', nodes: [node.id] });
  const untilMs = 1_767_312_000_000;
  const sleeping: JournalBody = {
    ...{ type: 'step-intent', step: 1, verb: 'sleep', class: 'read', args: { duration: '3d' } },
    ...{ rid: null, kind: null, name: null, action: 'run', before: { untilMs }, desired: null },
  };
  const woken: JournalBody = { type: 'step-result', step: 1, result: null, durationMs: 1 };
  const journal = journalOf(node, run, script, STARTED, sleeping, woken);
  await node.send({ type: 'events', run, events: journal.slice(0, 3) });
  expect(await fleet.coordinator.run(run)).toMatchObject({ waitingUntil: untilMs });
  const { items } = await fleet.coordinator.listRuns({ deployment: 'asleep' });
  expect(items).toMatchObject([{ run, waitingUntil: untilMs }]);
  await node.send({ type: 'events', run, events: journal });
  expect((await fleet.coordinator.run(run)).waitingUntil).toBeUndefined();
});

test('a refusal of what the node already runs changes nothing', async () => {
  const { run, journal } = await submitted('both');
  const problem = {
    type: 't',
    title: 't',
    status: 409,
    detail: 'd',
    code: 'E_CAPACITY',
    hint: 'h',
  };
  await node.send(
    { type: 'events', run, events: journal.slice(0, 2) },
    { type: 'refused', messageId: run, run, problem },
  );
  expect(await fleet.coordinator.run(run)).toMatchObject({ state: 'running', problem: null });
});

test('events are stored once, however often and in whatever batches they come', async () => {
  const { run, journal } = await submitted('repeated');
  const send = (from: number, to: number) =>
    node.send({ type: 'events', run, events: journal.slice(from, to) });
  await Promise.all([send(0, 2), send(0, 3), send(0, 2)]);
  await Promise.all([send(1, 4), send(0, 4)]);
  expect((await fleet.coordinator.journal(run)).items).toEqual(journal);
});

test('a gap is answered with the seq that is wanted', async () => {
  const { run, journal } = await submitted('gap');
  expect(await node.send({ type: 'events', run, events: journal.slice(1) })).toEqual([
    { status: 'want-events', seq: 1 },
  ]);
  expect((await fleet.coordinator.run(run)).state).toBe('accepted');
});

test('a journal that contradicts the stored one is refused loudly, and the stored one stays', async () => {
  const { script, run, journal } = await submitted('lying');
  await node.send({ type: 'events', run, events: journal.slice(0, 2) });
  const lie = journalOf(node, run, script, { ...STARTED, runner: 'another' } as typeof STARTED);
  expect(await node.send({ type: 'events', run, events: lie })).toEqual([
    refusedWith('E_CONFLICT'),
  ]);
  // What it logs comes on a pipe of its own, perhaps after the answer.
  await vi.waitFor(() =>
    expect(fleet.coordinatorProcess.log()).toContain('node contradicts itself'),
  );
  expect((await fleet.coordinator.journal(run)).items).toEqual(journal.slice(0, 2));
  expect(await node.send({ type: 'events', run, events: journal })).toEqual([OK]);
});

test('one bad item leaves the others of its batch alone', async () => {
  const good = await submitted('batch-good');
  const bad = await submitted('batch-bad');
  const [first, ...rest] = bad.journal;
  if (first === undefined) throw new Error('no event');
  expect(
    await node.send(
      { type: 'events', run: bad.run, events: [{ ...first, at: 7 }, ...rest] },
      { type: 'events', run: good.run, events: good.journal },
      { type: 'accepted', messageId: bad.run, run: bad.run },
    ),
  ).toEqual([refusedWith('E_CONFLICT'), OK, OK]);
  expect((await fleet.coordinator.run(good.run)).state).toBe('succeeded');
  expect((await fleet.coordinator.run(bad.run)).state).toBe('accepted');
});

test('a node speaks for its own runs only, and only with its own key', async () => {
  const { run, journal } = await submitted('mine');
  expect(await other.send({ type: 'events', run, events: journal })).toEqual([
    refusedWith('E_FORBIDDEN'),
  ]);
  const items = [{ type: 'events' as const, run, events: journal }];
  await expect(other.client.sendOutbox(node.id, { items })).rejects.toMatchObject({
    code: 'E_FORBIDDEN',
  });
  await expect(fleet.coordinator.sendOutbox(node.id, { items })).rejects.toMatchObject({
    code: 'E_FORBIDDEN',
  });
  const unsigned = new CoordinatorClient({ baseUrl: fleet.coordinatorProcess.url });
  await expect(unsigned.sendOutbox(node.id, { items })).rejects.toMatchObject({
    code: 'E_UNAUTHENTICATED',
  });
  const stranger = new CoordinatorClient({
    baseUrl: fleet.coordinatorProcess.url,
    signer: generateKey().signer,
  });
  await expect(stranger.sendOutbox(node.id, { items })).rejects.toMatchObject({
    code: 'E_UNAUTHENTICATED',
  });
  expect((await fleet.coordinator.journal(run)).items).toEqual([]);
});

test('a receipt is kept once its signature and its run are right', async () => {
  const { script, run, journal } = await submitted('receipt');
  await node.send({ type: 'events', run, events: journal });
  await expect(fleet.coordinator.receipt(run)).rejects.toMatchObject({ code: 'E_NOT_FOUND' });
  const receipt = receiptOf(node, script, journal);
  const send = (envelope: typeof receipt) => node.send({ type: 'receipt', run, envelope });
  const byOther = new FakeNode({
    view: { id: node.id, name: 'first' },
    signer: other.signer,
    url: () => '',
  });
  expect(await send(receiptOf(byOther, script, journal))).toEqual([refusedWith('E_UNKNOWN_KEY')]);
  expect(await send(receiptOf(node, script, journal, { journalHead: 'f'.repeat(64) }))).toEqual([
    refusedWith('E_CONFLICT'),
  ]);
  expect(await send(receiptOf(node, script, journal, { state: 'failed' }))).toEqual([
    refusedWith('E_CONFLICT'),
  ]);
  expect(await send(receipt)).toEqual([OK]);
  expect(await send(receipt)).toEqual([OK]);
  expect(await send(receiptOf(node, script, journal, { seq: 2 }))).toEqual([
    refusedWith('E_CONFLICT'),
  ]);
  expect(await fleet.coordinator.receipt(run)).toEqual(receipt);
});

test('a journal whose end contradicts the receipt that came first is refused', async () => {
  const { script, run, journal } = await submitted('receipt-first');
  const claimed = receiptOf(node, script, journal, { journalHead: 'f'.repeat(64) });
  expect(await node.send({ type: 'receipt', run, envelope: claimed })).toEqual([OK]);
  expect(await node.send({ type: 'events', run, events: journal })).toEqual([
    refusedWith('E_CONFLICT'),
  ]);
});

test('a run that reached its node on another path is asked for and then shown', async () => {
  const { script, run, journal } = submittedToNode('direct', 7);
  const events = { type: 'events', run, events: journal } as const;
  expect(await node.send(events)).toEqual([{ status: 'want-run' }]);
  const told = { type: 'run', run, envelope: script.envelope } as const;
  expect(await node.send(told, told, events)).toEqual([OK, OK, OK]);
  expect(await fleet.coordinator.run(run)).toMatchObject({ state: 'succeeded', generation: 7 });
  expect(await fleet.coordinator.deployment('default', 'direct')).toMatchObject({
    generation: 7,
    state: 'succeeded',
  });
});

test('a run learned from its node counts: same envelope, same run; its generation is taken', async () => {
  const { script, run } = submittedToNode('learned', 3);
  await node.send({ type: 'run', run, envelope: script.envelope });
  expect(await fleet.coordinator.submit({ envelope: script.envelope })).toEqual({
    revision: script.payload.id,
    runs: [{ run, node: node.id }],
    existing: true,
  });
  const lower = fleet.script({ deployment: 'learned', nodes: [node.id], generation: 2 });
  await expect(fleet.coordinator.submit({ envelope: lower.envelope })).rejects.toMatchObject({
    code: 'E_SUPERSEDED',
  });
});

test('a revision that one of its two nodes has is placed on the other only', async () => {
  const script = fleet.script({ deployment: 'half', nodes: [node.id, other.id], count: 2 });
  const run = journalRun(script.envelope);
  await node.send({ type: 'run', run, envelope: script.envelope });
  const { runs, existing } = await fleet.coordinator.submit({ envelope: script.envelope });
  expect(existing).toBeUndefined();
  expect(runs.map((each) => each.node).sort()).toEqual([node.id, other.id].sort());
  await other.open();
  await other.waitForRun(runs.find((each) => each.node === other.id)?.run ?? '');
  await node.open();
  expect(node.deliveries(run)).toBe(0);
});

test('a run nobody signed for this node is not learned', async () => {
  const stranger = fleet.script({ deployment: 'unsigned', nodes: [node.id] });
  const unsigned = signScript(stranger.payload, [generateKey().signer]);
  expect(await node.send({ type: 'run', run: journalRun(unsigned), envelope: unsigned })).toEqual([
    refusedWith('E_UNKNOWN_KEY'),
  ]);
  const elsewhere = fleet.script({ deployment: 'unsigned', nodes: [other.id] });
  expect(
    await node.send({
      type: 'run',
      run: journalRun(elsewhere.envelope),
      envelope: elsewhere.envelope,
    }),
  ).toEqual([refusedWith('E_AUDIENCE')]);
  const mine = fleet.script({ deployment: 'unsigned', nodes: [node.id] });
  expect(
    await node.send({ type: 'run', run: `run_${'a'.repeat(26)}`, envelope: mine.envelope }),
  ).toEqual([refusedWith('E_CONFLICT')]);
  expect((await fleet.coordinator.listRuns({ deployment: 'unsigned' })).items).toEqual([]);
});

test('a key that was revoked since still shows what it signed, but moves no generation', async () => {
  const key = generateKey().signer;
  await fleet.grant(key, 'operator', { name: 'gone' });
  const script = fleet.script({ deployment: 'history', nodes: [node.id], generation: 50 }, key);
  await fleet.change({ type: 'revoke', keyid: key.keyid, reason: 'left' });
  // A script signed with a fresh view makes the coordinator follow the ledger.
  await fleet.submit({ deployment: 'history', nodes: [node.id], generation: 1 });
  const run = journalRun(script.envelope);
  expect(await node.send({ type: 'run', run, envelope: script.envelope })).toEqual([OK]);
  expect(await fleet.coordinator.run(run)).toMatchObject({ generation: 50 });
  const next = fleet.script({ deployment: 'history', nodes: [node.id], generation: 2 });
  expect(await fleet.coordinator.submit({ envelope: next.envelope })).toMatchObject({
    revision: next.payload.id,
  });
});
