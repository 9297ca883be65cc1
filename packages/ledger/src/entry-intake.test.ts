import { GENESIS_HASH, LIMITS } from '@hypha/protocol';
import { expect, test } from 'vitest';
import { Machine, startTestLedger } from './testing/ledger-fixture.ts';

test('gives entries one index each, without gaps, also when refused ones come between', async () => {
  await using t = await startTestLedger();
  const machine = new Machine();
  await t.enrol(machine);
  const digests = Array.from({ length: 20 }, (_, n) => n.toString(16).padStart(64, '0'));
  const stranger = new Machine();
  for (const [n, digest] of digests.entries()) {
    await Promise.allSettled([
      t.client.appendEntry(machine.receipt(n + 1, digest).envelope),
      t.client.appendEntry(stranger.receipt(n + 1, digest).envelope),
    ]);
  }
  const { items } = await t.client.listEntries({ limit: 500 });
  expect(items.map(({ index }) => index)).toEqual(items.map((_, index) => index));
  expect(items.filter(({ kind }) => kind === 'receipt')).toHaveLength(20);
  expect(items.slice(0, 4).map(({ kind }) => kind)).toEqual([
    'authority',
    'authority',
    'admission',
    'enrol',
  ]);
});

test('the same receipt again is existing, at its old index', async () => {
  await using t = await startTestLedger();
  const machine = new Machine();
  await t.enrol(machine);
  const { envelope } = machine.receipt(1, GENESIS_HASH);
  const [first, second] = await Promise.all([
    t.client.appendEntry(envelope),
    t.client.appendEntry(envelope),
  ]);
  expect([first.existing, second.existing].toSorted()).toEqual([false, true]);
  expect(first.index).toBe(second.index);
});

test('a node that was set back to an old state is found out by its next receipt', async () => {
  await using t = await startTestLedger();
  const machine = new Machine();
  await t.enrol(machine);
  const digest = (n: number) => String(n).repeat(64);
  for (const n of [1, 2, 3]) await t.client.appendEntry(machine.receipt(n, digest(n)).envelope);
  // It remembers two, and signs another third.
  const restored = t.client.appendEntry(machine.receipt(3, digest(4)).envelope);
  await expect(restored).rejects.toMatchObject({
    code: 'E_CONFLICT',
    details: { known: { seq: 3 }, given: { seq: 3 } },
  });
  const skipping = t.client.appendEntry(machine.receipt(5, digest(5)).envelope);
  await expect(skipping).rejects.toMatchObject({ code: 'E_CONFLICT' });
  const { items } = await t.client.listEntries({ kind: 'receipt' });
  expect(items).toHaveLength(3);
});

test('a node that lost its journal begins its receipts again', async () => {
  await using t = await startTestLedger();
  const machine = new Machine();
  await t.enrol(machine);
  await t.client.appendEntry(machine.receipt(1, '1'.repeat(64)).envelope);
  await t.client.appendEntry(machine.receipt(2, '2'.repeat(64)).envelope);
  const again = machine.receipt(1, '3'.repeat(64));
  expect(await t.client.appendEntry(again.envelope)).toMatchObject({ existing: false });
  const next = machine.receipt(2, '4'.repeat(64));
  expect(await t.client.appendEntry(next.envelope)).toMatchObject({ existing: false });
});

test('a receipt is found by its run and comes back as it was signed', async () => {
  await using t = await startTestLedger();
  const machine = new Machine();
  await t.enrol(machine);
  const wanted = machine.receipt(1, '1'.repeat(64));
  await t.client.appendEntry(wanted.envelope);
  await t.client.appendEntry(machine.receipt(2, '2'.repeat(64)).envelope);
  const { items, nextCursor } = await t.client.listEntries({ kind: 'receipt', run: wanted.run });
  expect(items.map(({ envelope }) => envelope)).toEqual([wanted.envelope]);
  expect(nextCursor).toBeNull();
});

test('pages through the entries', async () => {
  await using t = await startTestLedger();
  const machine = new Machine();
  await t.enrol(machine);
  const seen: number[] = [];
  let cursor: string | null = null;
  do {
    const page: Awaited<ReturnType<typeof t.client.listEntries>> = await t.client.listEntries(
      cursor === null ? { limit: 1 } : { limit: 1, cursor },
    );
    seen.push(...page.items.map(({ index }) => index));
    cursor = page.nextCursor;
  } while (cursor !== null);
  expect(seen).toEqual([0, 1, 2, 3]);
});

test('refuses a receipt with one byte changed, a stranger, and what belongs elsewhere', async () => {
  await using t = await startTestLedger();
  const machine = new Machine();
  await t.enrol(machine);
  const { envelope } = machine.receipt(1, GENESIS_HASH);
  const changed = Buffer.from(envelope.payload, 'base64');
  changed[changed.length - 3] = (changed[changed.length - 3] ?? 0) ^ 1;
  await expect(
    t.client.appendEntry({ ...envelope, payload: changed.toString('base64') }),
  ).rejects.toMatchObject({ code: 'E_SIG_INVALID' });
  await expect(
    t.client.appendEntry(new Machine().receipt(1, GENESIS_HASH).envelope),
  ).rejects.toMatchObject({ code: 'E_UNKNOWN_KEY' });
  await expect(t.client.appendEntry(t.fleet.genesis)).rejects.toMatchObject({
    code: 'E_PAYLOAD_TYPE',
  });
  expect((await t.client.listEntries({ kind: 'receipt' })).items).toEqual([]);
});

test.for([
  ['a duplicate key', '{"envelope":{},"envelope":{}}', 400, 'E_ENVELOPE'],
  [
    'an unknown field',
    '{"envelope":{"payloadType":"","payload":"","signatures":[]},"x":1}',
    400,
    'E_ENVELOPE',
  ],
  ['no JSON', 'nonsense', 400, 'E_ENVELOPE'],
  ['too much', `{"envelope":"${'x'.repeat(LIMITS.submissionBytesMax)}"}`, 413, 'E_SIZE'],
] as const)('refuses a body with %s and goes on', async ([, body, status, code]) => {
  await using t = await startTestLedger();
  const answer = await fetch(`${t.ledger.url}/v1/log/entries`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body,
  });
  expect(answer.status).toBe(status);
  expect(answer.headers.get('content-type')).toBe('application/problem+json');
  expect(await answer.json()).toMatchObject({ code, hint: expect.any(String) });
  expect((await t.client.genesis()).hash).toBe(t.fleet.authority.genesisHash);
});
