import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { generateKey, nodeVerifier } from '@hypha/protocol/node';
import { openStore } from '@hypha/store';
import { expect, test } from 'vitest';
import { type JournalOptions, openJournal } from './journal.ts';
import { MIGRATIONS } from './journal-migrations.ts';
import type { JournalTables } from './journal-schema.ts';
import { acceptedOf, admissionOf, NODE, NOW_SECONDS, refusal } from './testing/journal-fixture.ts';

const optionsFor = (file: string): JournalOptions => ({
  file,
  node: NODE,
  signer: generateKey().signer,
  verifier: nodeVerifier,
  nowMs: () => NOW_SECONDS * 1000,
  authoritySeq: () => 0,
  useOf: () => null,
});

test('runs of a journal from before cancels have their signers, and no cancel', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'hypha-journal-'));
  const file = join(folder, 'journal.db');
  try {
    const admission = admissionOf();
    const { run, digest, payload, keyids } = admission;
    const before = MIGRATIONS.slice(0, 3);
    expect(before.at(-1)?.name).toBe('0003-replay-horizon');
    await using old = await openStore<JournalTables>({ file, migrations: before });
    const row = {
      ...{ run, digest, revision: payload.id, realm: 'default', deployment: 'web' },
      ...{ generation: 1, mode: 'apply', envelope: '{}', source: 'http', acceptedAt: 1 },
      ...{ expSeconds: 1, epoch: 1, seq: 1, head: 'h', state: 'accepted', steps: 0 },
      ...{ simulated: 0, onFailure: 'undo', deleteData: '[]', message: '', due: 1, told: 0 },
    };
    const body = JSON.stringify({ body: acceptedOf(admission) });
    await old.write([
      { query: old.db.insertInto('run').values(row as never) },
      { query: old.db.insertInto('event').values({ run, seq: 1, body }) },
    ]);
    await old.close();
    const journal = await openJournal(optionsFor(file));
    const entry = journal.findUnfinished(run);
    await journal.close();
    expect(entry).toMatchObject({ keyids, cancelRequestedAt: null, wakeAt: null });
  } finally {
    await rm(folder, { recursive: true });
  }
});

test('a journal that does not know which cancels it has forgotten has forgotten any', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'hypha-journal-'));
  const file = join(folder, 'journal.db');
  const begins = NOW_SECONDS + 3 * 86_400;
  try {
    const before = MIGRATIONS.slice(0, 4);
    expect(before.at(-1)?.name).toBe('0004-durable-runs');
    await using old = await openStore<JournalTables>({ file, migrations: before });
    const meta = { id: 1, createdAt: 0, receiptSeq: 0, dated: 1, forgottenSeconds: begins };
    await old.write([{ query: old.db.insertInto('meta').values(meta as never) }]);
    await old.close();
    const journal = await openJournal(optionsFor(file));
    const { horizon } = journal;
    const of = (iat: number) => admissionOf({ iat, nbf: begins, exp: begins + 900 }).payload;
    const [early, late] = [of(NOW_SECONDS), of(begins)];
    expect(() => horizon.check(early)).toThrow(refusal('E_EXPIRED'));
    expect(() => horizon.check(late)).not.toThrow();
    await journal.close();
  } finally {
    await rm(folder, { recursive: true });
  }
});
