import { readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { canonicalJson, Envelope, envelopeDigest } from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import { openStore } from '@hypha/store';
import { describe, expect, test } from 'vitest';
import { LEDGER_MIGRATIONS, type LedgerDb } from './ledger-schema.ts';
import { checkLog } from './log-check.ts';
import { LogDamage } from './log-damage.ts';
import { LogEntries } from './log-entries.ts';
import { LogTree } from './log-tree.ts';
import { Fleet, temporaryState } from './testing/ledger-fixture.ts';
import {
  appendAdmissions,
  nameLedgerKey,
  openLedger,
  REBUILD_TREE,
  readCheckpoint,
  tamper,
} from './testing/log-fixture.ts';

function readEntry(file: string, position: number) {
  const db = new DatabaseSync(file);
  try {
    const { digest, envelope } = db
      .prepare('select digest, envelope from entries where position = ?')
      .get(position) as { digest: string; envelope: string };
    const { signatures } = Envelope.parse(JSON.parse(envelope));
    return { digest, signature: signatures[0]?.sig ?? '' };
  } finally {
    db.close();
  }
}

async function startRefusal(state: string, fleet: Fleet): Promise<string> {
  try {
    await using ledger = await openLedger(state, fleet);
    await ledger.client.genesis();
    return 'none';
  } catch (error) {
    return error instanceof LogDamage ? error.message : String(error);
  }
}

function placesOf(bytes: Buffer, text: string): number[] {
  const places: number[] = [];
  for (let at = bytes.indexOf(text); at >= 0; at = bytes.indexOf(text, at + 1)) places.push(at);
  return places;
}

/** 13 entries, a checkpoint over the first 9 handed out, and the ledger stopped. */
async function stoppedLedger() {
  const state = await temporaryState();
  const fleet = new Fleet();
  await using ledger = await openLedger(state.path, fleet);
  await fleet.append(ledger.client, fleet.grant(fleet.admin, 'admin'));
  await nameLedgerKey(fleet, ledger.client);
  await appendAdmissions(fleet, ledger.client, 6);
  const checkpoint = await readCheckpoint(fleet, ledger.client);
  await appendAdmissions(fleet, ledger.client, 4);
  return {
    state: state.path,
    fleet,
    checkpoint,
    [Symbol.asyncDispose]: state[Symbol.asyncDispose],
  };
}

const flipByte = (position: number, at: string) =>
  `update entries set envelope = substr(envelope, 1, ${at}) || 'x' || substr(envelope, ${at} + 2) where position = ${position}`;
const flipNode = (level: number, idx: number) =>
  `update log_nodes set hash = unhex(replace(hex(hash), substr(hex(hash), 1, 2), 'FE')) where level = ${level} and idx = ${idx}`;
const swap = (a: number, b: number) => [
  `update entries set position = -1 where position = ${a}`,
  `update entries set position = ${a} where position = ${b}`,
  `update entries set position = ${b} where position = -1`,
];

describe('a ledger refuses to start', () => {
  test.for([
    ['with a changed byte in an entry', [flipByte(7, '40')], /^entry 7 is not what was appended$/],
    ['with a changed byte in the last entry', [flipByte(12, '9')], /^entry 12 is not what/],
    ['with a changed byte in the genesis', [flipByte(0, '100')], /^entry 0 is not what/],
    [
      'with an entry cut off',
      [`update entries set envelope = substr(envelope, 1, 50) where position = 4`],
      /^entry 4 is not what/,
    ],
    ['with an entry in the place of another', swap(5, 6), /^entry 5 is not what/],
    [
      'without an entry in the middle',
      ['delete from entries where position = 8'],
      /^entry 8 is missing$/,
    ],
    ['without its first entry', ['delete from entries where position = 0'], /^entry 0 is missing$/],
    [
      'with another digest of an entry',
      [`update entries set digest = '${'ab'.repeat(32)}' where position = 6`],
      /^entry 6 is kept under the digest of another$/,
    ],
    [
      'with another kind of an entry',
      [`update entries set kind = 'receipt' where position = 6`],
      /^entry 6 is kept as receipt and is none$/,
    ],
    [
      'with another time of an entry',
      ['update entries set at = at + 1 where position = 10'],
      /^entry 10 is not kept with the time, run and node it had$/,
    ],
    [
      'with an entry that is found as the receipt of another run',
      [`update entries set run = 'run_x' where position = 11`],
      /^entry 11 is not kept with the time, run and node it had$/,
    ],
    ['with a changed leaf', [flipNode(0, 3)], /^entry 3 is not what was appended$/],
    [
      'with a changed subtree',
      [flipNode(2, 1)],
      /^the tree over entries 4 to 7 is not that of these/,
    ],
    [
      'without a subtree',
      ['delete from log_nodes where level = 3'],
      /^the tree over entries 0 to 7 is not/,
    ],
    [
      'with a subtree too many',
      [
        'insert into log_nodes (level, idx, hash) select 0, 13, hash from log_nodes where level = 0 and idx = 0',
      ],
      /^the tree over 13 entries has 24 nodes, not 23$/,
    ],
    [
      'without entries that a checkpoint counted',
      [
        'delete from entries where position >= 8',
        'delete from log_nodes where (idx + 1) << level > 8',
      ],
      /newest checkpoint: entries 8 to 8 are missing$/,
    ],
    [
      'without the link of an authority update',
      ['delete from authority_updates where seq = 2'],
      /^entry 2 is not the next link of the authority chain$/,
    ],
    [
      'with a checkpoint that is not its own',
      [
        `update log_checkpoint set note = replace(note, char(10) || '9' || char(10), char(10) || '8' || char(10))`,
      ],
      /newest checkpoint: that one cannot be believed any more$/,
    ],
    [
      'with a checkpoint of an authority it does not have',
      ['update log_checkpoint set authority_seq = 9'],
      /newest checkpoint: that one cannot be believed any more$/,
    ],
  ] as const)('%s', async ([, statements, message]) => {
    await using stopped = await stoppedLedger();
    tamper(stopped.state, ...statements);
    const refused = openLedger(stopped.state, stopped.fleet);
    await expect(refused).rejects.toBeInstanceOf(LogDamage);
    await expect(refused).rejects.toMatchObject({ message: expect.stringMatching(message) });
  });

  test('with a flipped bit of an entry anywhere in the file', async () => {
    await using stopped = await stoppedLedger();
    const { state, fleet } = stopped;
    const file = join(state, 'ledger.db');
    const whole = await readFile(file);
    const { digest, signature } = readEntry(file, 1);
    // The digest stands in the row and in the index over it. A page that was split may hold a copy nobody reads.
    const places = [...placesOf(whole, digest), ...placesOf(whole, signature)];
    const refusals = new Set<string>();
    for (const place of places) {
      const flipped = Buffer.from(whole);
      flipped.writeUInt8(flipped.readUInt8(place + 20) ^ 1, place + 20);
      await writeFile(file, flipped);
      const refusal = await startRefusal(state, fleet);
      if (refusal !== 'none') refusals.add(refusal);
    }
    expect([...refusals].sort()).toEqual([
      'entry 1 is kept under the digest of another',
      'entry 1 is not what was appended',
      'the store is damaged',
    ]);
  });

  test('with a history that was rewritten whole, which the checkpoint that was handed out shows', async () => {
    await using stopped = await stoppedLedger();
    const { state, fleet, checkpoint } = stopped;
    tamper(state, ...swap(4, 5), ...REBUILD_TREE);
    const refused = openLedger(state, fleet);
    await expect(refused).rejects.toBeInstanceOf(LogDamage);
    await expect(refused).rejects.toMatchObject({
      message: expect.stringMatching(/the first 9 entries have the root [0-9a-f]{64}, it says/),
      evidence: checkpoint.note.split('\n'),
    });
  });
});

describe('a ledger that was stopped', () => {
  test('starts with its whole log and the checkpoint it had handed out', async () => {
    await using stopped = await stoppedLedger();
    await using ledger = await openLedger(stopped.state, stopped.fleet);
    const { client } = ledger;
    const { proof } = await client.consistency({ from: 9, to: 13 });
    expect(proof.length).toBeGreaterThan(0);
  });

  test('keeps its key, for its owner alone', async () => {
    await using stopped = await stoppedLedger();
    const file = join(stopped.state, 'ledger.pem');
    expect((await stat(file)).mode & 0o777).toBe(0o600);
    const pem = await readFile(file, 'utf8');
    await using ledger = await openLedger(stopped.state, stopped.fleet);
    expect(await readFile(file, 'utf8')).toBe(pem);
    const { keyid } = await ledger.client.logKey();
    expect(keyid).toBe(stopped.fleet.authority.ledgerKey?.keyid);
  });

  test('starts with a new key, and gives no checkpoint until the authority names it', async () => {
    await using stopped = await stoppedLedger();
    const { state, fleet } = stopped;
    await rm(join(state, 'ledger.pem'));
    {
      await using ledger = await openLedger(state, fleet);
      await expect(ledger.client.checkpoint()).rejects.toMatchObject({ code: 'E_UNAVAILABLE' });
      await nameLedgerKey(fleet, ledger.client);
      expect((await readCheckpoint(fleet, ledger.client)).size).toBe(14);
    }
    await using again = await openLedger(state, fleet);
    expect((await readCheckpoint(fleet, again.client)).size).toBe(14);
  });
});

describe('the tree over what an older version has stored', () => {
  test.for([0, 1, 2, 3, 7, 8, 21])(
    'of %i entries is made when the store is opened',
    async (count) => {
      await using state = await temporaryState();
      const file = join(state.path, 'ledger.db');
      const fleet = new Fleet();
      const envelopes = Array.from({ length: count }, () => fleet.admission().envelope);
      {
        await using old = await openStore<LedgerDb>({
          file,
          migrations: LEDGER_MIGRATIONS.slice(0, 1),
        });
        await old.write(
          envelopes.map((envelope, position) => ({
            query: old.db.insertInto('entries').values({
              position,
              at: 1,
              kind: 'admission',
              digest: envelopeDigest(nodeVerifier, envelope, 'admission'),
              envelope: canonicalJson(envelope),
              run: null,
              node: null,
            }),
          })),
        );
      }
      await using store = await openStore<LedgerDb>({ file, migrations: LEDGER_MIGRATIONS });
      expect(await checkLog(store, nodeVerifier)).toBe(count);
      const tree = new LogTree({ store, verifier: nodeVerifier });
      const entries = new LogEntries({ store, tree, verifier: nodeVerifier });
      const envelope = fleet.admission().envelope;
      await store.write(
        entries.appendWrites({
          kind: 'admission',
          digest: envelopeDigest(nodeVerifier, envelope, 'admission'),
          envelope,
          at: 2,
        }),
      );
      expect(await checkLog(store, nodeVerifier)).toBe(count + 1);
    },
  );
});
