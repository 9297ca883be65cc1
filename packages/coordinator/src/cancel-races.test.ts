/** What comes between a read and its write: each of these is a moment that no test through HTTP can hold. */
import {
  buildCancelPayload,
  buildScriptPayload,
  type Entropy,
  HyphaError,
  type Problem,
  signCancel,
  signScript,
  toProblem,
  type VerifiedCancel,
} from '@hypha/protocol';
import { generateKey, nodeVerifier } from '@hypha/protocol/node';
import { createLogger } from '@hypha/service';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { readCancels } from './cancel-memory.ts';
import { cancellationWrites } from './cancellation-writes.ts';
import { ChangeFeed } from './change-feed.ts';
import { Doorbell } from './doorbell.ts';
import { expireCancels, expireMessages } from './expiry.ts';
import { settleCancel } from './outbox-cancel.ts';
import type { OutboxDeps } from './outbox-deps.ts';
import { forgetOldCancels } from './retention.ts';
import { RunBook, runTopic } from './run-book.ts';
import { newRun, viewOf } from './run-record.ts';
import { acceptanceWrites, learnedWrites, type SignedScript } from './submission-writes.ts';
import { digestOfEnvelope } from './testing/fake-node.ts';
import { openTestStore, type TestStore } from './testing/test-store.ts';

const { signer } = generateKey();
const NODE = `node_${'a'.repeat(32)}`;
const GENESIS = { seq: 0, head: 'a'.repeat(64) };
const entropy: Entropy = {
  nowMs: 1_000,
  randomBytes: (count) => crypto.getRandomValues(new Uint8Array(count)),
};
const log = createLogger({ name: 'test', level: 'silent' });

type Store = TestStore['store'];

let opened: TestStore;
let nowMs: number;
let changes: ChangeFeed;
beforeEach(async () => {
  opened = await openTestStore();
  nowMs = 10_000;
  changes = new ChangeFeed({ store: opened.store, bell: new Doorbell() });
});
afterEach(() => opened.close());

const clock = {
  nowMs: () => nowMs,
  monotonicMs: () => nowMs,
  random: () => 0,
  sleep: async () => undefined,
};

function scriptOf(): SignedScript {
  const draft = { deployment: 'web', generation: 1, nodes: [NODE], authority: GENESIS };
  const source = 'export default () => 1';
  const payload = buildScriptPayload(nodeVerifier, { ...draft, source }, entropy);
  const envelope = signScript(payload, [signer]);
  return { payload, envelope, digest: digestOfEnvelope(envelope), keyids: [signer.keyid] };
}

function cancelOf({ digest }: SignedScript, keyid = signer.keyid): VerifiedCancel {
  const draft = { realm: 'default', nodes: [NODE], target: digest, authority: GENESIS };
  const payload = buildCancelPayload(draft, entropy);
  const envelope = signCancel(payload, [signer]);
  const cancelDigest = digestOfEnvelope(envelope);
  return { payload, envelope, digest: cancelDigest, keyids: [keyid], mayCancelAny: false };
}

/** The run of the script, and what accepting it would write after what is known of cancels now. */
async function submission(script: SignedScript) {
  const { store } = opened;
  const { digest, payload } = script;
  const row = newRun({ run: 'run', node: NODE, digest, payload, nowMs });
  const cancels = await readCancels(store, digest);
  return { store, changes, script, runs: [row], cancels, nowMs };
}

async function keep(cancel: VerifiedCancel): Promise<void> {
  const { store } = opened;
  const rows = await store.db.selectFrom('runs').selectAll().execute();
  await store.write(
    cancellationWrites({
      ...{ store, changes, cancel, nowMs },
      nodes: [NODE],
      live: rows,
      runsKnown: rows.length,
      graceMs: 0,
    }),
  );
}

function settle(
  cancel: VerifiedCancel,
  { store = opened.store, problem = null }: { store?: Store; problem?: Problem | null } = {},
) {
  const deps = { store, changes, bell: new Doorbell(), log, clock } as unknown as OutboxDeps;
  return settleCancel(deps, NODE, { messageId: `cancel-${cancel.digest}`, problem });
}

/** The store as it is for somebody between whose read and write something happens. */
function beforeItsWrite(store: Store, happens: () => Promise<unknown>): Store {
  return Object.assign(Object.create(store) as Store, {
    write: async (writes: Parameters<Store['write']>[0]) => {
      await happens();
      return await store.write(writes);
    },
  });
}

const run = () => opened.store.db.selectFrom('runs').selectAll().executeTakeFirstOrThrow();
const message = () => opened.store.db.selectFrom('inbox_messages').selectAll().executeTakeFirst();

test.for([
  ['accepted', (of: Awaited<ReturnType<typeof submission>>) => acceptanceWrites(of, 0)],
  ['told of', (of: Awaited<ReturnType<typeof submission>>) => learnedWrites(of, true)],
] as const)('a cancel that comes while its target is %s is not missed', async ([, writesOf]) => {
  const script = scriptOf();
  const before = await submission(script);
  await keep(cancelOf(script));
  await expect(opened.store.write(writesOf(before))).rejects.toMatchObject({ code: 'E_CONFLICT' });
  await opened.store.write(writesOf(await submission(script)));
  expect((await run()).cancel_requested_at).toBe(nowMs);
});

test('a target that comes while its cancel is accepted is not missed', async () => {
  const script = scriptOf();
  const cancel = cancelOf(script);
  const writes = cancellationWrites({
    ...{ store: opened.store, changes, cancel, nowMs },
    nodes: [NODE],
    live: [],
    runsKnown: 0,
    graceMs: 0,
  });
  await opened.store.write(acceptanceWrites(await submission(script), 0));
  await expect(opened.store.write(writes)).rejects.toMatchObject({ code: 'E_CONFLICT' });
  await keep(cancel);
  expect([(await run()).cancel_requested_at, (await message())?.held]).toEqual([nowMs, 1]);
});

test('a run that goes on while its cancel is accepted is judged again', async () => {
  const script = scriptOf();
  await opened.store.write(acceptanceWrites(await submission(script), 0));
  const before = await run();
  const { db } = opened.store;
  await opened.store.write([{ query: db.updateTable('runs').set({ state: 'committed' }) }]);
  const writes = cancellationWrites({
    ...{ store: opened.store, changes, cancel: cancelOf(script), nowMs },
    nodes: [NODE],
    live: [before],
    runsKnown: 1,
    graceMs: 0,
  });
  await expect(opened.store.write(writes)).rejects.toMatchObject({ code: 'E_CONFLICT' });
  expect(viewOf(await run())).not.toHaveProperty('cancelRequestedAt');
});

test('a node that takes the cancel while its target is accepted leaves nothing held for ever', async () => {
  const script = scriptOf();
  const cancel = cancelOf(script);
  await keep(cancel);
  const before = await submission(script);
  await settle(cancel);
  await expect(opened.store.write(acceptanceWrites(before, 0))).rejects.toMatchObject({
    code: 'E_CONFLICT',
  });
  await opened.store.write(acceptanceWrites(await submission(script), 0));
  expect((await message())?.held).toBe(0);
});

test('a target that is accepted while its node takes the cancel is released as well', async () => {
  const script = scriptOf();
  const cancel = cancelOf(script);
  await keep(cancel);
  const { store } = opened;
  const late = beforeItsWrite(store, async () => {
    await store.write(acceptanceWrites(await submission(script), 0));
  });
  await expect(settle(cancel, { store: late })).rejects.toMatchObject({ code: 'E_CONFLICT' });
  expect((await message())?.held).toBe(1);
  await settle(cancel);
  expect((await message())?.held).toBe(0);
});

test('what a node has taken releases only what its signer may cancel', async () => {
  const script = scriptOf();
  const foreign = cancelOf(script, 'ed25519:someone-else');
  const own = cancelOf(script);
  await keep(foreign);
  await keep(own);
  await opened.store.write(acceptanceWrites(await submission(script), 0));
  await settle(foreign);
  expect((await message())?.held).toBe(1);
  await settle(own);
  expect((await message())?.held).toBe(0);
});

test('a script that comes after its cancel has expired is not sent, and ends', async () => {
  const script = scriptOf();
  const cancel = cancelOf(script);
  await keep(cancel);
  nowMs = (cancel.payload.exp + 1) * 1000;
  const { store } = opened;
  expect(await expireCancels({ store, changes, bell: new Doorbell(), clock, log })).toBe(1);
  await store.write(acceptanceWrites(await submission(script), 1_000_000));
  const runs = new RunBook({ store, changes, bell: new Doorbell() });
  expect(await expireMessages({ store, runs, clock, log })).toBe(1);
  expect(viewOf(await run())).toMatchObject({
    state: 'rejected',
    problem: { code: 'E_CANCELLED' },
    cancelRequestedAt: 10_000,
  });
});

test('a run that its node tells of after it refused the cancel goes on', async () => {
  const script = scriptOf();
  const cancel = cancelOf(script);
  await keep(cancel);
  await settle(cancel, { problem: toProblem(new HyphaError('E_KEY_REVOKED', 'no more')) });
  await opened.store.write(learnedWrites(await submission(script), true));
  expect((await run()).cancel_requested_at).toBeNull();
});

test('a run that goes on while its cancel expires is judged again, and what follows changes is told', async () => {
  const script = scriptOf();
  await opened.store.write(learnedWrites(await submission(script), true));
  const cancel = cancelOf(script);
  await keep(cancel);
  nowMs = (cancel.payload.exp + 1) * 1000;
  const { store } = opened;
  const busy = beforeItsWrite(store, async () => {
    await store.write([{ query: store.db.updateTable('runs').set({ last_seq: 7 }) }]);
  });
  const bell = new Doorbell();
  const ring = vi.spyOn(bell, 'ring');
  const sweep = { changes, bell, clock, log };
  await expireCancels({ ...sweep, store: busy });
  expect((await run()).cancel_requested_at).not.toBeNull();
  expect(ring).not.toHaveBeenCalled();
  await expireCancels({ ...sweep, store });
  expect(ring).toHaveBeenCalledWith(runTopic('run'));
  expect((await run()).cancel_requested_at).toBeNull();
  const told = await changes.listAfter(0);
  expect(JSON.parse(told.at(-1)?.data ?? '')).not.toHaveProperty('cancelRequestedAt');
});

test('of two cancels that are lost at once, one takes the mark with it', async () => {
  const script = scriptOf();
  await opened.store.write(learnedWrites(await submission(script), true));
  const [first, second] = [cancelOf(script), cancelOf(script)];
  await keep(first);
  await keep(second);
  const problem = toProblem(new HyphaError('E_KEY_REVOKED', 'no more'));
  const late = beforeItsWrite(opened.store, () => settle(second, { problem }));
  await expect(settle(first, { problem, store: late })).rejects.toMatchObject({
    code: 'E_CONFLICT',
  });
  await settle(first, { problem });
  expect((await run()).cancel_requested_at).toBeNull();
});

test('a second cancel that is on its way keeps what the first one held', async () => {
  const script = scriptOf();
  await opened.store.write(acceptanceWrites(await submission(script), 1_000_000));
  const first = cancelOf(script);
  await keep(first);
  const exp = first.payload.exp + 100;
  const later = cancelOf(script);
  await keep({ ...later, payload: { ...later.payload, exp } });
  nowMs = (first.payload.exp + 1) * 1000;
  const { store } = opened;
  expect(await expireCancels({ store, changes, bell: new Doorbell(), clock, log })).toBe(1);
  expect((await message())?.expires_at).toBeGreaterThan(nowMs);
  nowMs = (exp + 1) * 1000;
  expect(await expireCancels({ store, changes, bell: new Doorbell(), clock, log })).toBe(1);
  expect((await message())?.expires_at).toBe(nowMs);
});

test('a cancel is kept until its time, and then forgotten with its messages', async () => {
  await keep(cancelOf(scriptOf()));
  const rows = () => opened.store.db.selectFrom('cancel_messages').selectAll().execute();
  await forgetOldCancels(opened.store, nowMs);
  expect(await rows()).toHaveLength(1);
  await forgetOldCancels(opened.store, nowMs + 1);
  expect(await rows()).toEqual([]);
  expect(await opened.store.db.selectFrom('cancellations').selectAll().execute()).toEqual([]);
});
