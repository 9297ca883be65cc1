import type { StreamEvent } from '@hypha/client';
import { type JournalBody, type JournalEvent, NodeView, RunView } from '@hypha/protocol';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { COMMITTED, type FakeNode, journalOf, STARTED, SUCCEEDED } from './testing/fake-node.ts';
import { TestFleet } from './testing/test-fleet.ts';

let fleet: TestFleet;
let node: FakeNode;
beforeAll(async () => {
  fleet = await TestFleet.start({ 'expiry-grace-ms': 0 });
  node = await fleet.addNode('first');
});
afterAll(() => fleet.stop());

async function submitted(deployment: string, lifetimeSeconds = 900) {
  const { script, run } = await fleet.submit({ deployment, nodes: [node.id], lifetimeSeconds });
  const journal = journalOf(node, run, script, STARTED, COMMITTED, SUCCEEDED);
  const send = (...events: JournalEvent[]) => node.send({ type: 'events', run, events });
  return { run, journal, send };
}

/** Reads a stream into a list until it ends or the test does. */
function collect(stream: AsyncIterable<StreamEvent>) {
  const events: StreamEvent[] = [];
  const done = (async () => {
    for await (const event of stream) events.push(event);
  })();
  return { events, done };
}

const names = (events: readonly StreamEvent[]) => events.map(({ id, event }) => `${id} ${event}`);

test('a run is followed live from before its delivery to its end', async () => {
  const { run, journal, send } = await submitted('live');
  const signal = AbortSignal.timeout(20_000);
  const { events, done } = collect(fleet.coordinator.runEvents(run, { signal }));
  await vi.waitFor(() => expect(names(events)).toEqual(['0 state']));
  expect(RunView.parse(JSON.parse(events[0]?.data ?? ''))).toMatchObject({ state: 'accepted' });
  for (const [index, event] of journal.entries()) {
    await send(event);
    await vi.waitFor(() => expect(events).toHaveLength(index + 2));
  }
  await done;
  expect(signal.aborted).toBe(false);
  expect(names(events)).toEqual([
    '0 state',
    '1 accepted',
    '2 started',
    '3 committed',
    '4 finished',
  ]);
  expect(events.slice(1).map(({ data }) => JSON.parse(data))).toEqual(journal);
});

test.for(['0', '1', '3'])('a stream goes on after event %s', async (lastEventId) => {
  const { run, journal, send } = await submitted(`resumed-${lastEventId}`);
  await send(...journal);
  const { events, done } = collect(
    fleet.coordinator.runEvents(run, { lastEventId, signal: AbortSignal.timeout(20_000) }),
  );
  await done;
  expect(events.map(({ id }) => Number(id))).toEqual(
    [1, 2, 3, 4].filter((seq) => seq > Number(lastEventId)),
  );
});

test('a stream of a finished run ends by itself, also with nothing left to tell', async () => {
  const { run, journal, send } = await submitted('over');
  await send(...journal);
  const { events, done } = collect(
    fleet.coordinator.runEvents(run, { lastEventId: '4', signal: AbortSignal.timeout(20_000) }),
  );
  await done;
  expect(events).toEqual([]);
});

test('a run that expires undelivered ends its stream with its state', async () => {
  const { run } = await submitted('expired', 2);
  const { events, done } = collect(
    fleet.coordinator.runEvents(run, { signal: AbortSignal.timeout(20_000) }),
  );
  await done;
  expect(names(events)).toEqual(['0 state', '0 state']);
  expect(JSON.parse(events[1]?.data ?? '')).toMatchObject({
    state: 'rejected',
    problem: { code: 'E_EXPIRED' },
  });
});

test('a stream of an unknown run, or after an odd event, is a problem document', async () => {
  const signal = AbortSignal.timeout(20_000);
  const next = (run: string, lastEventId?: string) =>
    fleet.coordinator
      .runEvents(run, { signal, ...(lastEventId === undefined ? {} : { lastEventId }) })
      .next();
  await expect(next(`run_${'a'.repeat(26)}`)).rejects.toMatchObject({ code: 'E_NOT_FOUND' });
  const { run } = await submitted('odd');
  await expect(next(run, 'x')).rejects.toMatchObject({ code: 'E_REQUEST' });
});

test('the stream of all changes tells runs and nodes, and goes on where it was', async () => {
  const end = new AbortController();
  const first = collect(fleet.coordinator.events({ signal: end.signal }));
  // Only what comes after the stream was opened is told: until then, offer changes.
  await vi.waitFor(
    async () => {
      await fleet.coordinatorAs(fleet.admin).cordon(node.id);
      await fleet.coordinatorAs(fleet.admin).uncordon(node.id);
      expect(first.events.length).toBeGreaterThan(0);
    },
    { timeout: 10_000, interval: 50 },
  );
  const { run, journal, send } = await submitted('told');
  await vi.waitFor(() => expect(runStates(first.events, run)).toEqual(['accepted']));
  end.abort();
  await first.done;
  const lastEventId = first.events.at(-1)?.id ?? '';
  await send(...journal.slice(0, 2));
  await send(...journal.slice(2));
  const again = new AbortController();
  const second = collect(fleet.coordinator.events({ lastEventId, signal: again.signal }));
  await vi.waitFor(() => expect(runStates(second.events, run)).toEqual(['running', 'succeeded']));
  again.abort();
  await second.done;
  const nodes = first.events.filter(({ event }) => event === 'node');
  expect(nodes.length).toBeGreaterThan(0);
  expect(NodeView.parse(JSON.parse(nodes[0]?.data ?? ''))).toMatchObject({ id: node.id });
});

function runStates(events: readonly StreamEvent[], run: string): string[] {
  return events
    .filter(({ event }) => event === 'run')
    .map(({ data }) => RunView.parse(JSON.parse(data)))
    .filter((view) => view.run === run)
    .map(({ state }) => state);
}

test('a long journal is streamed and paged whole and in order', async () => {
  const { script, run } = await fleet.submit({ deployment: 'long', nodes: [node.id] });
  const lines = Array.from(
    { length: 300 },
    (_, index): JournalBody => ({
      type: 'log',
      line: index + 1,
      message: 'm'.repeat(20_000),
      fields: {},
    }),
  );
  const journal = journalOf(node, run, script, STARTED, ...lines, COMMITTED, SUCCEEDED);
  for (let at = 0; at < journal.length; at += 100) {
    await node.send({ type: 'events', run, events: journal.slice(at, at + 100) });
  }
  const { events, done } = collect(
    fleet.coordinator.runEvents(run, { signal: AbortSignal.timeout(20_000) }),
  );
  await done;
  expect(events.map(({ id }) => Number(id))).toEqual(journal.map(({ seq }) => seq));
  const paged: JournalEvent[] = [];
  let pages = 0;
  for (let cursor: string | null | undefined; cursor !== null; pages++) {
    const page = await fleet.coordinator.journal(run, { limit: 500, cursor });
    paged.push(...page.items);
    cursor = page.nextCursor;
  }
  expect(paged).toEqual(journal);
  // Over four mebibytes of events: more than one page, whatever the limit.
  expect(pages).toBe(2);
});
