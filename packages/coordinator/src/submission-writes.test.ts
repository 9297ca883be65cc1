import { buildScriptPayload, signScript } from '@hypha/protocol';
import { generateKey, nodeVerifier } from '@hypha/protocol/node';
import { createLogger } from '@hypha/service';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { ChangeFeed } from './change-feed.ts';
import { Doorbell } from './doorbell.ts';
import { expireMessages } from './expiry.ts';
import { RunBook } from './run-book.ts';
import { newRun } from './run-record.ts';
import { acceptanceWrites, learnedWrites, type SignedScript } from './submission-writes.ts';
import { digestOfEnvelope } from './testing/fake-node.ts';
import { openTestStore, type TestStore } from './testing/test-store.ts';

const { signer } = generateKey();
const NODES = ['a', 'b'].map((letter) => `node_${letter.repeat(32)}`);

let opened: TestStore;
beforeEach(async () => {
  opened = await openTestStore();
});
afterEach(() => opened.close());

function scriptOf(mode: 'apply' | 'task' = 'apply', generation = 1): SignedScript {
  const payload = buildScriptPayload(
    nodeVerifier,
    {
      deployment: 'web',
      generation,
      mode,
      nodes: NODES,
      count: 1,
      authority: { seq: 0, head: 'a'.repeat(64) },
      source: 'export default () => 1',
    },
    { nowMs: 1_000, randomBytes: (count) => crypto.getRandomValues(new Uint8Array(count)) },
  );
  const envelope = signScript(payload, [signer]);
  return { payload, envelope, digest: digestOfEnvelope(envelope), keyids: [signer.keyid] };
}

function acceptance(script: SignedScript, node: string) {
  const { store } = opened;
  const changes = new ChangeFeed({ store, bell: new Doorbell() });
  const { digest, payload } = script;
  const run = newRun({ run: `run ${digest} ${node}`, node, digest, payload, nowMs: 1 });
  const cancels = { target: digest, messages: [], cancels: 0, settled: 0 };
  return { store, changes, script, runs: [run], cancels, nowMs: 1 };
}

async function count(table: 'runs' | 'revisions' | 'inbox_messages'): Promise<number> {
  const { rows } = await opened.store.db
    .selectFrom(table)
    .select(({ fn }) => fn.countAll<number>().as('rows'))
    .executeTakeFirstOrThrow();
  return rows;
}

test.for(['apply', 'task'] as const)(
  'one envelope (%s) placed twice at once, on two nodes, is placed once',
  async (mode) => {
    const script = scriptOf(mode);
    const settled = await Promise.allSettled(
      NODES.map((node) => opened.store.write(acceptanceWrites(acceptance(script, node), 0))),
    );
    expect(settled.map(({ status }) => status)).toEqual(['fulfilled', 'rejected']);
    expect(await count('runs')).toBe(1);
    expect(await count('inbox_messages')).toBe(1);
  },
);

test('two envelopes of one generation at once: nothing of the second is left', async () => {
  const [a, b] = [scriptOf(), scriptOf()];
  await opened.store.write(acceptanceWrites(acceptance(a, NODES[0] ?? ''), 0));
  await expect(
    opened.store.write(acceptanceWrites(acceptance(b, NODES[1] ?? ''), 0)),
  ).rejects.toMatchObject({ code: 'E_CONFLICT' });
  expect([await count('revisions'), await count('runs')]).toEqual([1, 1]);
});

test('a revision known from its node can still be placed; its messages are only its new runs', async () => {
  const script = scriptOf();
  const [first = '', second = ''] = NODES;
  await opened.store.write(learnedWrites(acceptance(script, first), true));
  expect(await count('inbox_messages')).toBe(0);
  await opened.store.write(acceptanceWrites(acceptance(script, second), 0));
  expect([await count('revisions'), await count('runs'), await count('inbox_messages')]).toEqual([
    1, 2, 1,
  ]);
});

test('an answer that comes in the moment of expiry wins', async () => {
  const { store } = opened;
  const script = scriptOf();
  const accepted = acceptance(script, NODES[0] ?? '');
  await store.write(acceptanceWrites(accepted, 0));
  const book = new RunBook({ store, changes: accepted.changes, bell: new Doorbell() });
  const answering = Object.assign(Object.create(book) as RunBook, {
    find: async (run: string) => {
      const row = await book.find(run);
      await store.write([{ query: store.db.deleteFrom('inbox_messages') }]);
      return row;
    },
    change: book.change.bind(book),
  });
  const clock = {
    nowMs: () => Date.now(),
    monotonicMs: () => performance.now(),
    random: () => 0,
    sleep: async () => undefined,
  };
  const log = createLogger({ name: 'test', level: 'silent' });
  expect(await expireMessages({ store, runs: answering, clock, log })).toBe(1);
  expect((await book.find(accepted.runs[0]?.run ?? ''))?.state).toBe('accepted');
});
