import {
  canonicalBytes,
  checkExtends,
  fromHex,
  hex,
  type LogEntry,
  leafHash,
  merkleRoot,
  PAYLOAD_TYPES,
  utf8,
  verifyInclusion,
} from '@hypha/protocol';
import { generateKey, nodeVerifier } from '@hypha/protocol/node';
import { describe, expect, test } from 'vitest';
import { startTestLedger } from './testing/ledger-fixture.ts';
import { appendAdmissions, listLog, nameLedgerKey, readCheckpoint } from './testing/log-fixture.ts';

const leafOf = ({ envelope }: LogEntry) => leafHash(nodeVerifier, canonicalBytes(envelope));
const rootOf = (entries: readonly LogEntry[]) => hex(merkleRoot(nodeVerifier, entries.map(leafOf)));

describe('a checkpoint', () => {
  test('is over exactly the entries there are, also those appended at the same time', async () => {
    await using t = await startTestLedger();
    await nameLedgerKey(t.fleet, t.client);
    for (const count of [1, 2, 61]) {
      await appendAdmissions(t.fleet, t.client, count);
      t.advance(1000);
      const { size, root } = await readCheckpoint(t.fleet, t.client);
      const entries = await listLog(t.client);
      expect(entries.map(({ leafHash: leaf }) => leaf)).toEqual(entries.map((e) => hex(leafOf(e))));
      expect({ size, root }).toEqual({ size: entries.length, root: rootOf(entries) });
    }
  });

  test('proves each of its entries, by digest and by index', async () => {
    await using t = await startTestLedger();
    await nameLedgerKey(t.fleet, t.client);
    await appendAdmissions(t.fleet, t.client, 10);
    const { size, root } = await readCheckpoint(t.fleet, t.client);
    await appendAdmissions(t.fleet, t.client, 3);
    const entries = await listLog(t.client);
    for (const { index, digest, leafHash: leaf } of entries.slice(0, size)) {
      const proven = await t.client.inclusion({ digest, size });
      expect(proven).toMatchObject({ index, size, leafHash: leaf });
      expect(await t.client.inclusion({ index, size })).toEqual(proven);
      verifyInclusion(nodeVerifier, {
        index,
        size,
        leafHash: fromHex(leaf),
        proof: proven.proof.map(fromHex),
        root: fromHex(root),
      });
    }
    expect((await t.client.inclusion({ index: 0 })).size).toBe(entries.length);
  });

  test('is shown to extend every one before it', async () => {
    await using t = await startTestLedger();
    await nameLedgerKey(t.fleet, t.client);
    const checkpoints = [];
    for (let n = 0; n < 9; n++) {
      checkpoints.push(await readCheckpoint(t.fleet, t.client));
      await appendAdmissions(t.fleet, t.client, 1 + (n % 3));
      t.advance(1000);
    }
    const newest = await readCheckpoint(t.fleet, t.client);
    for (const older of [...checkpoints, newest]) {
      const { proof } = await t.client.consistency({ from: older.size, to: newest.size });
      checkExtends(nodeVerifier, older, newest, proof);
    }
  });

  test('names the newest authority update below its size, whatever is appended meanwhile', async () => {
    await using t = await startTestLedger();
    await nameLedgerKey(t.fleet, t.client);
    const checkpoints = [await readCheckpoint(t.fleet, t.client)];
    const grants = (async () => {
      for (let n = 0; n < 8; n++) {
        const change = t.fleet.grant(generateKey().signer, 'operator');
        await Promise.all([
          t.fleet.append(t.client, change),
          t.client.appendEntry(t.fleet.admission().envelope),
        ]);
      }
      return 'done' as const;
    })();
    for (let next: unknown; next !== 'done'; ) {
      t.advance(1000);
      checkpoints.push(await readCheckpoint(t.fleet, t.client));
      next = await Promise.race([grants, undefined]);
    }
    t.advance(1000);
    checkpoints.push(await readCheckpoint(t.fleet, t.client));
    const entries = await listLog(t.client);
    for (const { size, root, authority } of checkpoints) {
      const below = entries.slice(0, size);
      const updates = below.filter((e) => e.envelope.payloadType === PAYLOAD_TYPES.authority);
      expect(authority).toEqual({ seq: updates.length - 1, head: updates.at(-1)?.digest });
      expect(root).toBe(rootOf(below));
    }
    expect(checkpoints.at(-1)?.authority.seq).toBe(t.fleet.authority.seq);
  });

  test('is over everything that was answered before it was asked for', async () => {
    await using t = await startTestLedger();
    await nameLedgerKey(t.fleet, t.client);
    const before = await readCheckpoint(t.fleet, t.client);
    await appendAdmissions(t.fleet, t.client, 1);
    expect((await readCheckpoint(t.fleet, t.client)).size).toBe(before.size + 1);
  });

  test('is signed anew after a second, also when the clock was set back', async () => {
    await using t = await startTestLedger();
    await nameLedgerKey(t.fleet, t.client);
    const first = await readCheckpoint(t.fleet, t.client);
    await appendAdmissions(t.fleet, t.client, 1);
    t.advance(-3_600_000);
    const earlier = await readCheckpoint(t.fleet, t.client);
    expect(earlier.size).toBe(first.size + 1);
    expect(earlier.time).toBeLessThan(first.time);
    t.advance(7_200_000);
    expect((await readCheckpoint(t.fleet, t.client)).time).toBeGreaterThan(first.time);
  });

  test('is not dated before an earlier one when the clock is corrected by a little', async () => {
    await using t = await startTestLedger();
    await nameLedgerKey(t.fleet, t.client);
    const first = await readCheckpoint(t.fleet, t.client);
    await appendAdmissions(t.fleet, t.client, 1);
    t.advance(-60_000);
    const next = await readCheckpoint(t.fleet, t.client);
    expect(next).toMatchObject({ size: first.size + 1, time: first.time });
  });

  test('is not given while the authority names no key or another than the ledger has', async () => {
    await using t = await startTestLedger();
    const refusal = {
      code: 'E_UNAVAILABLE',
      hint: expect.stringContaining('hypha authority set-ledger-key FILE'),
    };
    await expect(t.client.checkpoint()).rejects.toMatchObject(refusal);
    await nameLedgerKey(t.fleet, t.client);
    await readCheckpoint(t.fleet, t.client);
    const other = Buffer.from(generateKey().signer.publicKey).toString('base64');
    await t.fleet.append(t.client, { type: 'set-ledger-key', publicKey: other });
    await expect(t.client.checkpoint()).rejects.toMatchObject(refusal);
    await nameLedgerKey(t.fleet, t.client);
    t.advance(1000);
    expect((await readCheckpoint(t.fleet, t.client)).authority.seq).toBe(t.fleet.authority.seq);
  });
});

describe('the log', () => {
  test('answers everybody, signed or not', async () => {
    await using t = await startTestLedger();
    await nameLedgerKey(t.fleet, t.client);
    for (const path of ['key', 'checkpoint', 'inclusion?index=0', 'consistency?from=1&to=2']) {
      const answer = await fetch(`${t.ledger.url}/v1/log/${path}`);
      expect(`${path} ${answer.status}`).toBe(`${path} 200`);
      await answer.body?.cancel();
    }
  });

  test.for([
    ['inclusion', 400, 'E_REQUEST'],
    [`inclusion?index=0&digest=${'ab'.repeat(32)}`, 400, 'E_REQUEST'],
    ['inclusion?digest=xyz', 400, 'E_REQUEST'],
    [`inclusion?digest=${'ab'.repeat(32)}`, 404, 'E_NOT_FOUND'],
    ['inclusion?index=-1', 400, 'E_REQUEST'],
    ['inclusion?index=2', 404, 'E_NOT_FOUND'],
    ['inclusion?index=1&size=1', 404, 'E_NOT_FOUND'],
    ['inclusion?index=0&size=0', 400, 'E_REQUEST'],
    ['inclusion?index=0&size=3', 404, 'E_NOT_FOUND'],
    ['inclusion?index=0&size=9007199254740992', 400, 'E_REQUEST'],
    ['consistency', 400, 'E_REQUEST'],
    ['consistency?from=0&to=1', 400, 'E_REQUEST'],
    ['consistency?from=2&to=1', 400, 'E_REQUEST'],
    ['consistency?from=1&to=3', 404, 'E_NOT_FOUND'],
    ['consistency?from=3&to=3', 404, 'E_NOT_FOUND'],
  ] as const)('of two entries answers %s with %i', async ([path, status, code]) => {
    await using t = await startTestLedger();
    const answer = await fetch(`${t.ledger.url}/v1/log/${path}`);
    expect(answer.status).toBe(status);
    expect(await answer.json()).toMatchObject({ code });
  });

  test('keeps the very text that its leaves are of', async () => {
    await using t = await startTestLedger();
    const { items } = await t.client.listEntries({ limit: 1 });
    const text = JSON.stringify({
      payload: t.fleet.genesis.payload,
      payloadType: t.fleet.genesis.payloadType,
      signatures: t.fleet.genesis.signatures.map(({ keyid, sig }) => ({ keyid, sig })),
    });
    expect(items[0]?.leafHash).toBe(hex(leafHash(nodeVerifier, utf8(text))));
  });
});
