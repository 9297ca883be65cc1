import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { generateKey, nodeVerifier } from '@hypha/protocol/node';
import { openStore } from '@hypha/store';
import { expect, test } from 'vitest';
import { openJournal } from './journal.ts';
import { MIGRATIONS } from './journal-migrations.ts';
import type { JournalTables } from './journal-schema.ts';
import { acceptedOf, admissionOf, NODE, NOW_SECONDS } from './testing/journal-fixture.ts';

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
    const journal = await openJournal({
      file,
      node: NODE,
      signer: generateKey().signer,
      verifier: nodeVerifier,
      nowMs: () => NOW_SECONDS * 1000,
      authoritySeq: () => 0,
      useOf: () => null,
    });
    const entry = journal.findUnfinished(run);
    await journal.close();
    expect(entry).toMatchObject({ keyids, cancelRequestedAt: null, wakeAt: null });
  } finally {
    await rm(folder, { recursive: true });
  }
});
