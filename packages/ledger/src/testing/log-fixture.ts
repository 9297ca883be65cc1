/** What tests of the log share: a ledger whose key the authority names, and its checkpoints verified. */
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { LedgerClient } from '@hypha/client';
import {
  type Checkpoint,
  checkpointOrigin,
  fromBase64,
  type LogEntry,
  verifyCheckpoint,
} from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import { createLogger } from '@hypha/service';
import { type Ledger, startLedger } from '../ledger.ts';
import { LEDGER_MIGRATIONS, ROW_HASH } from '../ledger-schema.ts';
import type { Fleet } from './ledger-fixture.ts';

/** A ledger in this process on a state that other ledgers had before. Reads it signs as the fleet's admin. */
export async function openLedger(state: string, fleet: Fleet) {
  const ledger: Ledger = await startLedger({
    state,
    host: '127.0.0.1',
    port: 0,
    genesis: fleet.genesis,
    reportIntervalMs: 1000,
    log: createLogger({ name: 'test', level: 'silent' }),
    clock: { nowMs: fleet.nowMs },
  });
  const client = new LedgerClient({ baseUrl: ledger.url, signer: fleet.admin });
  return {
    client,
    [Symbol.asyncDispose]: async () => {
      await client.http.close();
      await ledger.close();
    },
  };
}

/** Makes the fleet's authority name the key that this ledger has. */
export async function nameLedgerKey(fleet: Fleet, client: LedgerClient): Promise<void> {
  const { publicKey } = await client.logKey();
  await fleet.append(client, { type: 'set-ledger-key', publicKey });
}

/** The newest checkpoint, believed only when the key the ledger says it has signed it. */
export async function readCheckpoint(fleet: Fleet, client: LedgerClient): Promise<Checkpoint> {
  const { publicKey } = await client.logKey();
  const { checkpoint } = await client.checkpoint();
  return verifyCheckpoint(nodeVerifier, checkpoint, {
    origin: checkpointOrigin(fleet.authority.genesisHash),
    publicKey: fromBase64(publicKey),
  });
}

/** Appends this many admissions, all at the same time. */
export async function appendAdmissions(
  fleet: Fleet,
  client: LedgerClient,
  count: number,
): Promise<void> {
  const admissions = Array.from({ length: count }, () => fleet.admission());
  await Promise.all(admissions.map(({ envelope }) => client.appendEntry(envelope)));
}

export async function listLog(client: LedgerClient): Promise<readonly LogEntry[]> {
  const entries: LogEntry[] = [];
  for (let cursor: string | null | undefined; cursor !== null; ) {
    const page = await client.listEntries({ limit: 500, cursor });
    entries.push(...page.items);
    cursor = page.nextCursor;
  }
  return entries;
}

/** Hashes the tree anew over whatever the entries are now: what somebody who owns the store can do. */
export const REBUILD_TREE = [
  `update entries set row_hash = ${ROW_HASH}`,
  'delete from log_nodes',
  ...LEDGER_MIGRATIONS.flatMap(({ name, up }) =>
    name === '0002-log-tree' && typeof up === 'object'
      ? up.filter((statement) => statement.startsWith('insert'))
      : [],
  ),
];

/** Statements on the store of a ledger that is stopped. Each but an insert has to change something. */
export function tamper(state: string, ...statements: readonly string[]): void {
  const db = new DatabaseSync(join(state, 'ledger.db'));
  try {
    db.exec('PRAGMA foreign_keys = OFF');
    db.function('sha256_concat', { varargs: true }, (...parts) =>
      createHash('sha256')
        .update(Buffer.concat(parts.map((part) => part as Uint8Array)))
        .digest(),
    );
    for (const statement of statements) {
      const { changes } = db.prepare(statement).run();
      if (changes === 0 && !statement.startsWith('insert'))
        throw new Error(`changed nothing: ${statement}`);
    }
  } finally {
    db.close();
  }
}
