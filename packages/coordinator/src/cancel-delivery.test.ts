import { type Envelope, HyphaError, type RunView, runIdOf, toProblem } from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import {
  CANCELLED,
  COMMITTED,
  digestOfEnvelope,
  type FakeNode,
  journalOf,
  receiptOf,
  STARTED,
} from './testing/fake-node.ts';
import { TestFleet } from './testing/test-fleet.ts';

let fleet: TestFleet;
beforeAll(async () => {
  fleet = await TestFleet.start({ 'expiry-grace-ms': 0 });
});
afterAll(() => fleet.stop());

const OK = [{ status: 'ok' }];
const TOO_LATE = toProblem(new HyphaError('E_TOO_LATE', 'it has committed'));

async function restart(): Promise<void> {
  await fleet.coordinatorProcess.kill('SIGKILL');
  await fleet.startCoordinator();
}

async function submitted(deployment: string, lifetimeSeconds = 900) {
  const node = await fleet.addNode(deployment);
  const { script, run } = await fleet.submit({ deployment, nodes: [node.id], lifetimeSeconds });
  return { node, script, run };
}

const view = (run: string): Promise<RunView> => fleet.coordinator.run(run);
const cancel = (envelope: Envelope) => fleet.coordinator.cancel({ envelope });

/** Kinds and ids of what came, doubled ones once, without the authority. */
function cameTo(node: FakeNode): readonly string[] {
  const ids = node.received.filter(({ type }) => type !== 'authority').map(({ id }) => id);
  return [...new Set(ids)];
}

/** Something else for the node came behind: what was not sent by now is held. */
async function untilNextCame(node: FakeNode, deployment: string): Promise<string> {
  const { run } = await fleet.submit({ deployment, nodes: [node.id] });
  await node.waitForRun(run);
  await node.acknowledge(run);
  return run;
}

test('cancelled before it was sent, a run goes to its node behind its cancel, whatever dies in between', async () => {
  const { node, script, run } = await submitted('before');
  const { envelope, digest } = fleet.cancel(script);
  const answer = await cancel(envelope);
  expect(answer).toEqual({
    cancellation: digest,
    target: (await view(run)).envelopeDigest,
    runs: [{ run, node: node.id }],
  });
  expect(await view(run)).toMatchObject({
    state: 'accepted',
    cancelRequestedAt: expect.any(Number),
  });
  await restart();
  await node.open();
  expect(await node.waitForCancel(digest)).toEqual(envelope);
  const next = await untilNextCame(node, 'before-next');
  expect(node.deliveries(run)).toBe(0);
  await restart();
  expect(await node.answerCancel(digest)).toEqual(OK);
  await restart();
  await node.open();
  await node.waitForRun(run);
  expect(cameTo(node)).toEqual([`cancel-${digest}`, next, run]);
  const journal = journalOf(node, run, script, CANCELLED);
  const receipt = receiptOf(node, script, journal, { state: 'cancelled' });
  await node.send(
    { type: 'events', run, events: journal },
    { type: 'receipt', run, envelope: receipt },
  );
  const { cancelRequestedAt } = await view(run);
  expect(await view(run)).toMatchObject({ state: 'cancelled', cancelRequestedAt });
  expect(cancelRequestedAt).toBeTypeOf('number');
  expect(await fleet.coordinator.receipt(run)).toEqual(receipt);
});

test('a cancel of what the node runs is sent again until it is answered, and then never again', async () => {
  const { node, script, run } = await submitted('during');
  await node.open();
  await node.waitForRun(run);
  const journal = journalOf(node, run, script, STARTED, CANCELLED);
  await node.send({ type: 'events', run, events: journal.slice(0, 2) });
  const { envelope, digest } = fleet.cancel(script);
  await cancel(envelope);
  await vi.waitFor(() => expect(node.cancels(digest)).toBeGreaterThan(1), { timeout: 10_000 });
  await restart();
  const before = node.cancels(digest);
  await node.open();
  await vi.waitFor(() => expect(node.cancels(digest)).toBeGreaterThan(before), { timeout: 10_000 });
  expect(await node.answerCancel(digest)).toEqual(OK);
  expect(await node.answerCancel(digest, TOO_LATE)).toEqual(OK);
  const count = node.cancels(digest);
  await node.close();
  await node.open();
  await untilNextCame(node, 'during-next');
  expect(node.cancels(digest)).toBe(count);
  expect(await view(run)).toMatchObject({
    state: 'running',
    cancelRequestedAt: expect.any(Number),
  });
  await node.send({ type: 'events', run, events: journal });
  expect(await view(run)).toMatchObject({ state: 'cancelled' });
});

test('sent but not answered, a run is not sent again before its node has taken the cancel', async () => {
  const { node, script, run } = await submitted('unanswered');
  await node.open();
  await node.waitForRun(run);
  const { envelope, digest } = fleet.cancel(script);
  await cancel(envelope);
  await node.waitForCancel(digest);
  const count = node.deliveries(run);
  await node.close();
  await node.open();
  await untilNextCame(node, 'unanswered-next');
  expect(node.deliveries(run)).toBe(count);
  await node.answerCancel(digest);
  await vi.waitFor(() => expect(node.deliveries(run)).toBe(count + 1), { timeout: 10_000 });
});

test('after the commit point a cancel is too late, and nothing is sent', async () => {
  const { node, script, run } = await submitted('after');
  await node.open();
  await node.waitForRun(run);
  const journal = journalOf(node, run, script, STARTED, COMMITTED);
  await node.send({ type: 'events', run, events: journal });
  await restart();
  const { envelope, digest } = fleet.cancel(script);
  await expect(cancel(envelope)).rejects.toMatchObject({
    code: 'E_TOO_LATE',
    details: { runs: [{ run, state: 'committed' }] },
  });
  await node.open();
  await untilNextCame(node, 'after-next');
  expect(node.cancels(digest)).toBe(0);
  expect(await view(run)).not.toHaveProperty('cancelRequestedAt');
});

test('a cancel that overtakes its script is with the node first, and the script comes behind it', async () => {
  const node = await fleet.addNode('overtaken');
  const script = fleet.script({ deployment: 'overtaken', nodes: [node.id] });
  const { envelope, digest } = fleet.cancel(script);
  expect(await cancel(envelope)).toMatchObject({ cancellation: digest, runs: [] });
  await restart();
  const { runs } = await fleet.coordinator.submit({ envelope: script.envelope });
  const run = runs[0]?.run ?? '';
  expect(await view(run)).toMatchObject({ cancelRequestedAt: expect.any(Number) });
  await node.open();
  await node.waitForCancel(digest);
  const next = await untilNextCame(node, 'overtaken-next');
  await node.answerCancel(digest);
  await node.waitForRun(run);
  expect(cameTo(node)).toEqual([`cancel-${digest}`, next, run]);
});

test('a script whose cancel its node has taken already is sent at once', async () => {
  const node = await fleet.addNode('prepared');
  const script = fleet.script({ deployment: 'prepared', nodes: [node.id] });
  const { envelope, digest } = fleet.cancel(script);
  await cancel(envelope);
  await node.open();
  await node.waitForCancel(digest);
  await node.answerCancel(digest);
  await restart();
  await node.open();
  const { runs } = await fleet.coordinator.submit({ envelope: script.envelope });
  const run = runs[0]?.run ?? '';
  await node.waitForRun(run);
  expect(await view(run)).toMatchObject({ cancelRequestedAt: expect.any(Number) });
});

test('a run that its node tells of meets the cancel that was there before it', async () => {
  const node = await fleet.addNode('direct');
  const script = fleet.script({ deployment: 'direct', nodes: [node.id] });
  const { envelope } = fleet.cancel(script);
  await cancel(envelope);
  const run = runIdOf(nodeVerifier, digestOfEnvelope(script.envelope), node.id);
  expect(await node.send({ type: 'run', run, envelope: script.envelope })).toEqual(OK);
  expect(await view(run)).toMatchObject({ cancelRequestedAt: expect.any(Number) });
});

test('a cancel that its node was told of itself is known by its receipt', async () => {
  const { node, script, run } = await submitted('at-the-node');
  const journal = journalOf(node, run, script, STARTED, CANCELLED);
  await node.send({ type: 'events', run, events: journal });
  const ended = { state: 'cancelled', cancelRequestedAt: 7 } as const;
  const receipt = {
    type: 'receipt',
    run,
    envelope: receiptOf(node, script, journal, ended),
  } as const;
  expect(await node.send(receipt)).toEqual(OK);
  expect(await view(run)).toMatchObject({ state: 'cancelled', cancelRequestedAt: 7 });
  expect(await node.send(receipt)).toEqual(OK);
});

test('a cancel that its node refuses is taken back from a run that goes on', async () => {
  const { node, script, run } = await submitted('refused');
  await node.open();
  await node.waitForRun(run);
  const journal = journalOf(node, run, script, STARTED);
  await node.send({ type: 'events', run, events: journal });
  const { envelope, digest } = fleet.cancel(script);
  await cancel(envelope);
  expect(await node.answerCancel(digest, TOO_LATE)).toEqual(OK);
  expect(await view(run)).not.toHaveProperty('cancelRequestedAt');
  expect((await view(run)).state).toBe('running');
});

test('a run whose cancel is lost before either was sent is never sent, and nobody says it was cancelled there', async () => {
  const { node, script, run } = await submitted('lost');
  const { envelope, digest } = fleet.cancel(script, { lifetimeSeconds: 2 });
  await cancel(envelope);
  await vi.waitFor(
    async () =>
      expect(await view(run)).toMatchObject({
        state: 'rejected',
        problem: { code: 'E_CANCELLED', detail: expect.stringContaining('before it was sent') },
      }),
    { timeout: 10_000 },
  );
  await node.open();
  await untilNextCame(node, 'lost-next');
  expect([node.deliveries(run), node.cancels(digest)]).toEqual([0, 0]);
  // Whoever cancels it again hears that it is done.
  expect(await cancel(fleet.cancel(script).envelope)).toMatchObject({ existing: true, runs: [] });
  // Submitted to the node as well, it would have run: the node's truth wins.
  await node.send({ type: 'events', run, events: journalOf(node, run, script, STARTED) });
  expect(await view(run)).toMatchObject({ state: 'running', problem: null });
});

test('a reader of a run that waits for its node is told of the cancel', async () => {
  const { script, run } = await submitted('followed');
  const end = new AbortController();
  const seen: RunView[] = [];
  const reading = (async () => {
    for await (const { data } of fleet.coordinator.runEvents(run, { signal: end.signal })) {
      seen.push(JSON.parse(data) as RunView);
    }
  })();
  await vi.waitFor(() => expect(seen).toHaveLength(1), { timeout: 10_000 });
  await cancel(fleet.cancel(script).envelope);
  await vi.waitFor(() => expect(seen).toHaveLength(2), { timeout: 10_000 });
  expect(seen[1]).toMatchObject({ state: 'accepted', cancelRequestedAt: expect.any(Number) });
  end.abort();
  await reading;
});
