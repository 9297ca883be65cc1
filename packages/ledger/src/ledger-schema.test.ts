import { join } from 'node:path';
import { openStore } from '@hypha/store';
import { expect, test } from 'vitest';
import { LEDGER_MIGRATIONS, type LedgerDb } from './ledger-schema.ts';
import { temporaryState } from './testing/ledger-fixture.ts';

test('nodes of an older ledger stay, with no sealing key until they tell it', async () => {
  await using state = await temporaryState();
  const file = join(state.path, 'ledger.db');
  const before = LEDGER_MIGRATIONS.findIndex(({ name }) => name === '0003-enrolment');
  const older = { file, migrations: LEDGER_MIGRATIONS.slice(0, before) };
  {
    await using store = await openStore<LedgerDb>(older);
    const { seal_key, enrolled_iat, replaced_by, ...row } = ROW;
    await store.write([{ query: store.db.insertInto('nodes').values(row as typeof ROW) }]);
  }
  await using store = await openStore<LedgerDb>({ file, migrations: LEDGER_MIGRATIONS });
  expect(await store.db.selectFrom('nodes').selectAll().execute()).toEqual([ROW]);
});

const ROW = {
  ...{ id: 'node_a', name: 'edge-1', keyid: 'k', public_key: 'p', labels: '{}', realms: '[]' },
  ...{ enrolled_at: 1, revoked: 0, heard_at: 1, report_seq: 0, reported_at: null, report: null },
  ...{ boot_id: 'b', uptime_ms: 0, facts: '{}', free: '{}' },
  ...{ seal_key: '', enrolled_iat: 0, replaced_by: null },
};
