import { Authority } from '@hypha/protocol';
import { generateKey, nodeVerifier } from '@hypha/protocol/node';
import { createLogger } from '@hypha/service';
import { expect, test } from 'vitest';
import { startLedger } from './ledger.ts';
import { Fleet, startTestLedger, temporaryState } from './testing/ledger-fixture.ts';

test('serves a chain that replays from the pinned genesis', async () => {
  await using t = await startTestLedger();
  const operator = generateKey().signer;
  await t.fleet.append(t.client, t.fleet.grant(operator, 'operator'), t.fleet.admin);
  const { envelope, hash } = await t.client.genesis();
  expect(envelope).toEqual(t.fleet.genesis);
  const { items, head } = await t.client.authority();
  const replayed = Authority.replay(nodeVerifier, items, hash);
  expect({ seq: replayed.seq, hash: replayed.head }).toEqual(head);
  expect(replayed.findKey(operator.keyid)?.status).toBe('active');
  expect((await t.client.authority({ since: 1 })).items).toEqual(items.slice(2));
  expect((await t.client.authority({ since: 2 })).items).toEqual([]);
});

test('of two updates on the same head one is taken and the other is told', async () => {
  await using t = await startTestLedger();
  const updates = [1, 2, 3].map((n) =>
    t.fleet.update(t.fleet.grant(generateKey().signer, 'operator', `operator-${n}` as 'operator')),
  );
  const outcomes = await Promise.allSettled(updates.map((u) => t.client.appendAuthority(u)));
  expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
  for (const outcome of outcomes) {
    if (outcome.status === 'fulfilled') continue;
    expect(outcome.reason).toMatchObject({ code: 'E_AUTHORITY', details: { reason: 'fork' } });
  }
  expect((await t.client.authority()).head.seq).toBe(2);
});

test('the same update again is answered with the head', async () => {
  await using t = await startTestLedger();
  const update = t.fleet.update(t.fleet.grant(generateKey().signer, 'operator'));
  const answers = await Promise.all([
    t.client.appendAuthority(update),
    t.client.appendAuthority(update),
  ]);
  expect(answers[0]).toEqual(answers[1]);
  expect((await t.client.listEntries({ kind: 'authority' })).items).toHaveLength(3);
});

test('refuses an update by a key without the right, and keeps the chain as it was', async () => {
  await using t = await startTestLedger();
  const stranger = generateKey().signer;
  const update = t.fleet.update(t.fleet.grant(stranger, 'operator'), stranger);
  await expect(t.client.appendAuthority(update)).rejects.toMatchObject({ code: 'E_UNKNOWN_KEY' });
  const second = t.fleet.update(t.fleet.grant(generateKey().signer, 'admin'), t.fleet.admin);
  await expect(t.client.appendAuthority(second)).rejects.toMatchObject({ code: 'E_SCOPE' });
  expect((await t.client.authority()).head.seq).toBe(1);
});

test('a revoked admin admits nobody', async () => {
  await using t = await startTestLedger();
  const { keyid } = t.fleet.admin;
  await t.fleet.append(t.client, { type: 'revoke', keyid, reason: 'lost' });
  await expect(t.client.appendEntry(t.fleet.admission().envelope)).rejects.toMatchObject({
    code: 'E_KEY_REVOKED',
  });
});

test('a key reads nodes while it is granted, in time and not revoked', async () => {
  await using t = await startTestLedger();
  const viewer = generateKey().signer;
  const asViewer = t.clientOf({ signer: viewer });
  await expect(asViewer.listNodes()).rejects.toMatchObject({ code: 'E_UNAUTHENTICATED' });
  const change = t.fleet.grant(viewer, 'operator');
  if (change.type !== 'grant') throw new Error('not a grant');
  const notAfter = t.fleet.nowSeconds + 100;
  await t.fleet.append(t.client, { ...change, grant: { ...change.grant, notAfter } });
  expect((await asViewer.listNodes()).items).toEqual([]);
  t.advance(101_000);
  await expect(asViewer.listNodes()).rejects.toMatchObject({ code: 'E_KEY_EXPIRED' });
  await t.fleet.append(t.client, change);
  expect((await asViewer.listNodes()).items).toEqual([]);
  await t.fleet.append(t.client, { type: 'revoke', keyid: viewer.keyid, reason: 'lost' });
  await expect(asViewer.listNodes()).rejects.toMatchObject({ code: 'E_KEY_REVOKED' });
});

test('starts without a genesis only where it has one, and never with another', async () => {
  await using state = await temporaryState();
  const fleet = new Fleet();
  const options = {
    state: state.path,
    host: '127.0.0.1',
    port: 0,
    reportIntervalMs: 1000,
    log: createLogger({ name: 'test', level: 'silent' }),
  } as const;
  await expect(startLedger(options)).rejects.toMatchObject({ code: 'E_AUTHORITY' });
  await (await startLedger({ ...options, genesis: fleet.genesis })).close();
  await (await startLedger(options)).close();
  await (await startLedger({ ...options, genesis: fleet.genesis })).close();
  await expect(startLedger({ ...options, genesis: new Fleet().genesis })).rejects.toMatchObject({
    code: 'E_AUTHORITY',
  });
});
