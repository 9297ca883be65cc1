import type { NodeView, RunState, ScriptMode, ScriptPayload } from '@hypha/protocol';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { readCandidates } from './candidates.ts';
import { newRun } from './run-record.ts';
import { openTestStore, type TestStore } from './testing/test-store.ts';

const NOW = 1_000_000_000;
const REPORTED = NOW - 5_000;

let opened: TestStore;
beforeEach(async () => {
  opened = await openTestStore();
  await opened.store.write([
    { query: opened.store.db.insertInto('nodes').values({ id: 'n', view: '{}' }) },
  ]);
});
afterEach(() => opened.close());

const node = { id: 'n', lastReportAt: REPORTED } as NodeView;

interface RunOptions {
  readonly deployment?: string;
  readonly generation?: number;
  readonly mode?: ScriptMode;
  readonly state?: RunState;
  readonly submittedAt?: number;
  /** Events stored of it. */
  readonly lastSeq?: number;
  readonly milliCpus?: number;
  readonly hasMessage?: boolean;
  readonly keeps?: number;
}

let count = 0;
async function addRun(options: RunOptions): Promise<void> {
  const { deployment = 'web', generation = 1, mode = 'apply', state = 'succeeded' } = options;
  const { submittedAt = NOW - 60_000, lastSeq = 4, milliCpus = 100, hasMessage = false } = options;
  const { keeps = 0 } = options;
  const run = `run_${count++}`;
  const payload = { id: run, realm: 'default', deployment, generation, mode, message: '' };
  const row = newRun({
    run,
    node: 'n',
    digest: run,
    payload: payload as ScriptPayload,
    nowMs: submittedAt,
  });
  const resources = { milliCpus, memoryBytes: 0, storageBytes: 0 };
  const { db } = opened.store;
  await opened.store.write([
    { query: db.insertInto('runs').values({ ...row, state, last_seq: lastSeq, keeps }) },
    {
      query: db.insertInto('revisions').values({
        digest: run,
        id: run,
        realm: 'default',
        deployment,
        generation,
        mode,
        resources: JSON.stringify(resources),
        wanted: 1,
        exp: 0,
        message: '',
        envelope: '',
        known_at: 0,
        placed_at: 0,
      }),
    },
    ...(hasMessage
      ? [
          {
            query: db
              .insertInto('inbox_messages')
              .values({ id: run, node: 'n', run, attempts: 0, due_at: 0, expires_at: NOW }),
          },
        ]
      : []),
  ]);
}

async function candidate(deployment: string) {
  const [only] = await readCandidates(opened.store, [node], {
    nowMs: NOW,
    deployment: { realm: 'default', deployment },
  });
  if (only === undefined) throw new Error('no candidate');
  return { held: only.held?.milliCpus ?? null, sent: only.sent.milliCpus, waiting: only.waiting };
}

test('a node without runs holds nothing and was sent nothing', async () => {
  expect(await candidate('web')).toEqual({ held: null, sent: 0, waiting: 0 });
});

test('the newest revision that was not undone is what a node holds', async () => {
  await addRun({ generation: 1, milliCpus: 10 });
  await addRun({ generation: 2, milliCpus: 20 });
  await addRun({ generation: 3, milliCpus: 30, state: 'failed' });
  await addRun({ generation: 9, milliCpus: 90, mode: 'task' });
  await addRun({ deployment: 'other', generation: 99, milliCpus: 99 });
  expect((await candidate('web')).held).toBe(20);
  expect((await candidate('third')).held).toBeNull();
});

test('a failure that was kept is held beside the revision before it, until the next one', async () => {
  await addRun({ deployment: 'kept', generation: 1, milliCpus: 10, state: 'failed', keeps: 1 });
  expect((await candidate('kept')).held).toBe(10);
  await addRun({ deployment: 'kept', generation: 2, milliCpus: 40 });
  expect((await candidate('kept')).held).toBe(40);
  await addRun({ deployment: 'kept', generation: 3, milliCpus: 20, state: 'failed', keeps: 1 });
  expect((await candidate('kept')).held).toBe(40);
  await addRun({ deployment: 'kept', generation: 4, milliCpus: 60, state: 'cancelled', keeps: 1 });
  expect((await candidate('kept')).held).toBe(60);
  await addRun({ deployment: 'kept', generation: 5, milliCpus: 30 });
  expect((await candidate('kept')).held).toBe(30);
});

test('a node with a new key holds what it held under those before', async () => {
  await addRun({ generation: 3, milliCpus: 30 });
  const renewed = { ...node, id: 'renewed' };
  await opened.store.write([
    { query: opened.store.db.insertInto('nodes').values({ id: 'renewed', view: '{}' }) },
  ]);
  const read = async (predecessors: ReadonlyMap<string, readonly string[]>) => {
    const deployment = { realm: 'default', deployment: 'web' };
    const ask = { nowMs: NOW, deployment, predecessors };
    const [only] = await readCandidates(opened.store, [renewed], ask);
    return only?.held?.milliCpus ?? null;
  };
  expect(await read(new Map())).toBeNull();
  expect(await read(new Map([['renewed', ['older', 'n']]]))).toBe(30);
});

test('a destroyed deployment is held no more', async () => {
  await addRun({ generation: 1 });
  await addRun({ generation: 2, mode: 'destroy' });
  expect((await candidate('web')).held).toBeNull();
});

test('what came after the last report counts as sent, once a deployment', async () => {
  const submittedAt = REPORTED + 1;
  await addRun({ deployment: 'a', generation: 1, submittedAt, milliCpus: 10 });
  await addRun({ deployment: 'a', generation: 2, submittedAt, milliCpus: 20 });
  await addRun({ deployment: 'b', submittedAt, milliCpus: 5 });
  await addRun({ deployment: 'c', submittedAt, milliCpus: 1000, state: 'rejected' });
  await addRun({ deployment: 'd', submittedAt: REPORTED - 1, milliCpus: 1000 });
  expect((await candidate('web')).sent).toBe(25);
});

test('plans and tasks count for nothing, and hide no revision below them', async () => {
  const submittedAt = REPORTED + 1;
  await addRun({ deployment: 'a', generation: 1, submittedAt, milliCpus: 10 });
  await addRun({ deployment: 'a', generation: 2, submittedAt, milliCpus: 500, mode: 'plan' });
  await addRun({ deployment: 'b', generation: 3, submittedAt, milliCpus: 500, mode: 'task' });
  expect((await candidate('web')).sent).toBe(10);
});

test('its own deployment is not counted against a revision', async () => {
  await addRun({ submittedAt: REPORTED + 1, milliCpus: 10 });
  // Held, but not yet missing from what the node reported as free.
  expect(await candidate('web')).toMatchObject({ sent: 0, held: 0 });
});

test('what was never delivered counts, however old, and waits', async () => {
  await addRun({
    deployment: 'a',
    state: 'accepted',
    submittedAt: REPORTED - 100_000,
    lastSeq: 0,
    milliCpus: 7,
    hasMessage: true,
  });
  expect(await candidate('web')).toMatchObject({ sent: 7, waiting: 1 });
});

test('more nodes than one query takes are all read, in their order', async () => {
  const many = Array.from({ length: 2500 }, (_, index) => ({ ...node, id: `n${index}` }));
  const candidates = await readCandidates(opened.store, many, { nowMs: NOW });
  expect(candidates.map((each) => each.node.id)).toEqual(many.map(({ id }) => id));
});
