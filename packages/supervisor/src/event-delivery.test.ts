import type { OutboxItem, OutboxResult } from '@hypha/protocol';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { EventDelivery } from './event-delivery.ts';
import { admissionOf, finished, JournalWorld, silentLog } from './testing/journal-world.ts';

let world: JournalWorld;
let batches: OutboxItem[][];
let answer: (item: OutboxItem) => OutboxResult;
let delivery: EventDelivery;
beforeEach(async () => {
  world = await JournalWorld.open();
  batches = [];
  answer = () => ({ status: 'ok' });
  delivery = new EventDelivery({
    journal: world.journal,
    log: silentLog,
    send: async (items) => {
      batches.push(items);
      return { results: items.map((item) => answer(item)) };
    },
  });
});
afterEach(async () => {
  await world[Symbol.asyncDispose]();
});

const signal = new AbortController().signal;
const runOf = (item: OutboxItem) => ('run' in item ? item.run : undefined);
const shown = () =>
  batches.flat().map((item) => {
    const seqs = item.type === 'events' ? item.events.map(({ seq }) => seq).join(',') : '';
    return `${item.type} ${seqs}`.trim();
  });

/** As the delivery loop does, which tries again after a failure. */
async function deliverAll(): Promise<void> {
  for (let failures = 0; failures < 5; ) {
    try {
      if (!(await delivery.deliver(signal))) return;
    } catch {
      failures++;
    }
  }
}

async function endedRun(source: 'http' | 'inbox' = 'inbox'): Promise<string> {
  const admission = { ...admissionOf(), source };
  await world.journal.admit(admission);
  const { run } = admission;
  await world.journal.append(run, { by: 'supervisor' }, [finished('rejected', 'E_SCOPE')]);
  return run;
}

test('events come in order, then the receipt, and nothing twice', async () => {
  const run = await world.begin([]);
  await deliverAll();
  await world.fixture.append(run, [finished('failed', 'E_SCRIPT')]);
  await deliverAll();
  await deliverAll();
  expect(shown()).toEqual(['run', 'events 1,2', 'events 3', 'receipt']);
});

test('a run that came by the inbox needs no introduction', async () => {
  await endedRun('inbox');
  await deliverAll();
  expect(shown()).toEqual(['events 1,2', 'receipt']);
});

test('a coordinator that forgot the run is told of it again, from the start', async () => {
  await endedRun('inbox');
  let isKnown = false;
  answer = (item) => {
    if (item.type === 'run') isKnown = true;
    return isKnown ? { status: 'ok' } : { status: 'want-run' };
  };
  await deliverAll();
  expect(shown().slice(2)).toEqual(['run', 'events 1,2', 'receipt']);
});

test('a coordinator that lacks events is told them again', async () => {
  const run = await world.begin([]);
  await deliverAll();
  await world.fixture.append(run, [finished('failed', 'E_SCRIPT')]);
  let lacks = true;
  answer = (item) => {
    const isStart = item.type === 'events' && item.events[0]?.seq === 1;
    if (isStart) lacks = false;
    return lacks && item.type !== 'run' ? { status: 'want-events', seq: 1 } : { status: 'ok' };
  };
  await deliverAll();
  expect(shown().slice(-3)).toEqual(['run', 'events 1,2,3', 'receipt']);
});

test('what is refused for good holds up nothing', async () => {
  const [first, second] = [await endedRun(), await endedRun()];
  const problem = { type: '', title: '', status: 409, detail: '', code: 'E_CONFLICT', hint: '' };
  answer = (item) => (runOf(item) === first ? { status: 'refused', problem } : { status: 'ok' });
  await deliverAll();
  expect(batches.flat().filter((item) => runOf(item) === second)).toHaveLength(2);
  expect(await world.journal.cursors.listBacklog(10)).toEqual([]);
});

test('a run that is refused itself is given up, and no later event of it is sent', async () => {
  const run = await world.begin([]);
  const problem = { type: '', title: '', status: 409, detail: '', code: 'E_CONFLICT', hint: '' };
  answer = ({ type }) => (type === 'run' ? { status: 'refused', problem } : { status: 'want-run' });
  await deliverAll();
  await world.fixture.append(run, [finished('failed', 'E_SCRIPT')]);
  batches = [];
  await deliverAll();
  expect(batches).toEqual([]);
});

test('what has no result counts as not taken', async () => {
  await endedRun();
  delivery = new EventDelivery({
    journal: world.journal,
    log: silentLog,
    send: async () => ({ results: [] }),
  });
  await expect(delivery.deliver(signal)).rejects.toMatchObject({ code: 'E_UNAVAILABLE' });
  expect(await world.journal.cursors.listBacklog(10)).toMatchObject([{ told: 0 }]);
});

test('what could not be sent is sent later, answers to messages too', async () => {
  await endedRun();
  delivery.acknowledge({ type: 'accepted', messageId: 'm', run: `run_${'a'.repeat(26)}` });
  answer = () => {
    throw new Error('away');
  };
  await expect(delivery.deliver(signal)).rejects.toThrow('away');
  batches = [];
  answer = () => ({ status: 'ok' });
  await deliverAll();
  expect(shown()).toEqual(['accepted', 'events 1,2', 'receipt']);
});

test('large events go in several batches', async () => {
  const run = await world.begin([]);
  const message = '€'.repeat(150_000);
  for (let line = 1; line <= 20; line++) {
    await world.fixture.append(run, [{ type: 'log', line, message, fields: null }]);
  }
  await deliverAll();
  for (const batch of batches)
    expect(Buffer.byteLength(JSON.stringify({ items: batch }))).toBeLessThan(4_000_000);
  const seqs = batches.flat().flatMap((item) => (item.type === 'events' ? item.events : []));
  expect(seqs.map(({ seq }) => seq)).toEqual(Array.from({ length: 22 }, (_, index) => index + 1));
});
