import type { ScriptPayload } from '@hypha/protocol';
import type { Store } from '@hypha/store';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { ChangeFeed } from './change-feed.ts';
import { Doorbell } from './doorbell.ts';
import { COORDINATOR_LIMITS as LIMITS } from './limits.ts';
import { forgetOldRevisions } from './retention.ts';
import { newRun } from './run-record.ts';
import type { CoordinatorDb } from './schema.ts';
import { openTestStore, type TestStore } from './testing/test-store.ts';

let opened: TestStore;
let store: Store<CoordinatorDb>;
beforeEach(async () => {
  opened = await openTestStore();
  ({ store } = opened);
});
afterEach(() => opened.close());

async function addRevision(name: string, knownAt: number, state: string): Promise<void> {
  const digest = name;
  const payload = {
    id: `rev_${name}`,
    realm: 'default',
    deployment: 'web',
    generation: 1,
    mode: 'apply',
    message: '',
  } as ScriptPayload;
  const row = { ...newRun({ run: `run_${name}`, node: 'n', digest, payload, nowMs: 0 }), state };
  const { db } = store;
  await store.write([
    {
      query: db.insertInto('revisions').values({
        digest,
        id: payload.id,
        realm: 'default',
        deployment: 'web',
        generation: 1,
        mode: 'apply',
        resources: '{}',
        wanted: 1,
        exp: 0,
        message: '',
        envelope: '{}',
        known_at: knownAt,
        placed_at: knownAt,
      }),
    },
    { query: db.insertInto('runs').values(row) },
    { query: db.insertInto('spent_tokens').values({ token: `id ${name}`, digest }) },
    { query: db.insertInto('receipts').values({ run: row.run, digest, envelope: '{}' }) },
    {
      query: db
        .insertInto('journal_events')
        .values({ run: row.run, seq: 1, type: 'accepted', hash: '', event: '{}' }),
    },
  ]);
}

async function count(table: keyof CoordinatorDb): Promise<number> {
  const { rows } = await store.db
    .selectFrom(table)
    .select(({ fn }) => fn.countAll<number>().as('rows'))
    .executeTakeFirstOrThrow();
  return rows;
}

test('an old revision whose runs ended is forgotten whole; all others stay whole', async () => {
  await addRevision('old', 10, 'succeeded');
  await addRevision('unfinished', 10, 'running');
  await addRevision('newest', 10, 'succeeded');
  await addRevision('young', 20, 'failed');
  await store.write([
    {
      query: store.db
        .insertInto('generation_marks')
        .values({ realm: 'default', deployment: 'web', generation: 1, digest: 'newest' }),
    },
  ]);
  expect(await forgetOldRevisions(store, 20)).toBe(1);
  for (const table of [
    'revisions',
    'runs',
    'spent_tokens',
    'receipts',
    'journal_events',
  ] as const) {
    expect([table, await count(table)]).toEqual([table, 3]);
  }
  const left = await store.db.selectFrom('revisions').select('digest').orderBy('digest').execute();
  expect(left.map(({ digest }) => digest)).toEqual(['newest', 'unfinished', 'young']);
  expect(await forgetOldRevisions(store, 20)).toBe(0);
});

test('only the newest changes are kept', async () => {
  const changes = new ChangeFeed({ store, bell: new Doorbell() });
  const extra = 5;
  const rows = Array.from({ length: LIMITS.changesKept + extra }, () => ({
    at: 0,
    type: 'run',
    data: '{}',
  }));
  for (let at = 0; at < rows.length; at += 1000) {
    await store.write([
      { query: store.db.insertInto('changes').values(rows.slice(at, at + 1000)) },
    ]);
  }
  await changes.prune();
  expect(await count('changes')).toBe(LIMITS.changesKept);
  expect((await changes.listAfter(0))[0]?.id).toBe(extra + 1);
  expect(await changes.head()).toBe(LIMITS.changesKept + extra);
});
