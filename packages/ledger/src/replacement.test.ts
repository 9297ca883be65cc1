import { base64 } from '@hypha/protocol';
import { generateKey } from '@hypha/protocol/node';
import { describe, expect, test } from 'vitest';
import { enrolBy } from './testing/enrolment-rig.ts';
import { type AdmissionOptions, Machine, startTestLedger } from './testing/ledger-fixture.ts';

type Ledger = Awaited<ReturnType<typeof startTestLedger>>;

/** `edge-1` in `default`, with a label; and its admission. */
async function enrolled(t: Ledger, options: AdmissionOptions = {}) {
  const machine = new Machine();
  const { envelope: admission, token } = t.fleet.admission({ labels: { zone: 'a' }, ...options });
  await t.client.appendEntry(admission);
  await enrolBy(t, machine, { admission, token });
  return { machine, admission, token };
}

async function expectReplaced(t: Ledger, old: Machine, next: Machine): Promise<void> {
  expect(await t.client.node(old.id)).toMatchObject({
    state: 'revoked',
    replacedBy: next.id,
    labels: {},
  });
  expect((await t.client.listNodes({ labels: { zone: 'a' } })).items).toMatchObject([
    { id: next.id, name: 'edge-1', realms: ['default'], state: 'ready' },
  ]);
  const client = t.clientOf(old);
  await expect(client.report(old.id, [old.report(9, 1)])).rejects.toMatchObject({
    code: 'E_UNAUTHENTICATED',
  });
  await expect(client.appendEntry(old.receipt(1, 'a'.repeat(64)).envelope)).rejects.toMatchObject({
    code: 'E_KEY_REVOKED',
  });
  await expect(enrolBy(t, old)).rejects.toMatchObject({
    code: 'E_KEY_REVOKED',
    message: expect.stringContaining(next.id),
  });
  const { items } = await t.client.listEntries({ kind: 'enrol', node: next.id });
  expect(items).toHaveLength(1);
}

describe('a node with a new key', () => {
  test('takes its place by the signature of the old one', async () => {
    await using t = await startTestLedger();
    const { machine: old, admission } = await enrolled(t);
    const next = new Machine();
    const replaces = old.id;
    expect(await enrolBy(t, next, { admission, replaces }, old.signer)).toMatchObject({
      id: next.id,
    });
    await expectReplaced(t, old, next);
    // And the one after it, long after the token has expired.
    t.advance(86_400_000);
    const third = new Machine();
    await enrolBy(t, third, { admission, replaces: next.id }, next.signer);
    await expectReplaced(t, next, third);
    expect((await t.client.listNodes({ state: 'revoked' })).items).toHaveLength(2);
  });

  test('goes on with the receipts where the old one stopped, and leaves none out', async () => {
    await using t = await startTestLedger();
    const { machine: old, admission } = await enrolled(t);
    await t.clientOf(old).appendEntry(old.receipt(1, 'a'.repeat(64)).envelope);
    old.receipt(2, 'b'.repeat(64));
    const next = new Machine();
    next.continueAfter(old);
    await enrolBy(t, next, { admission, replaces: old.id }, old.signer);
    const client = t.clientOf(next);
    await expect(
      client.appendEntry(next.receipt(3, 'c'.repeat(64)).envelope),
    ).rejects.toMatchObject({ code: 'E_CONFLICT' });
    await client.appendEntry(next.receipt(2, 'd'.repeat(64)).envelope);
    await client.appendEntry(next.receipt(3, 'e'.repeat(64)).envelope);
    expect((await t.client.listEntries({ kind: 'receipt', node: next.id })).items).toHaveLength(2);
  });

  test('gets the same record when the answer was lost', async () => {
    await using t = await startTestLedger();
    const { machine: old, admission } = await enrolled(t);
    const next = new Machine();
    const take = { admission, replaces: old.id };
    const first = await enrolBy(t, next, take, old.signer);
    expect(await enrolBy(t, next, take, old.signer)).toEqual(first);
  });

  test('does not get a place that the old key has not signed away', async () => {
    await using t = await startTestLedger();
    const { machine: old, admission, token } = await enrolled(t);
    const thief = new Machine();
    await expect(enrolBy(t, thief, { admission, token, replaces: old.id })).rejects.toMatchObject({
      code: 'E_SIG_THRESHOLD',
    });
    await expect(
      enrolBy(t, thief, { admission, replaces: old.id }, new Machine().signer),
    ).rejects.toMatchObject({ code: 'E_UNKNOWN_KEY' });
    await expect(enrolBy(t, thief, { admission, token })).rejects.toMatchObject({
      code: 'E_TOKEN',
    });
    expect((await t.client.node(old.id)).state).toBe('ready');
  });

  test('does not get into another place than that of the old key', async () => {
    await using t = await startTestLedger();
    const { machine: old } = await enrolled(t);
    const free = t.fleet.admission({ name: 'other', realms: ['default', 'prod'] });
    await t.client.appendEntry(free.envelope);
    const next = new Machine();
    await expect(
      enrolBy(t, next, { admission: free.envelope, replaces: old.id }, old.signer),
    ).rejects.toMatchObject({ code: 'E_TOKEN' });
    expect((await t.client.node(old.id)).state).toBe('ready');
  });

  test('of two at once by the same old key is one', async () => {
    await using t = await startTestLedger();
    const { machine: old, admission } = await enrolled(t);
    const [a, b] = [new Machine(), new Machine()];
    const take = { admission, replaces: old.id };
    const outcomes = await Promise.allSettled([
      enrolBy(t, a, take, old.signer),
      enrolBy(t, b, take, old.signer),
    ]);
    expect(outcomes.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
    expect(outcomes.find(({ status }) => status === 'rejected')).toMatchObject({
      reason: { code: 'E_KEY_REVOKED' },
    });
  });

  test('is refused the place of a node that the authority revoked', async () => {
    await using t = await startTestLedger();
    const { machine: old, admission } = await enrolled(t);
    await t.fleet.append(t.client, { type: 'revoke-node', node: old.id, reason: 'stolen' });
    await expect(
      enrolBy(t, new Machine(), { admission, replaces: old.id }, old.signer),
    ).rejects.toMatchObject({ code: 'E_KEY_REVOKED' });
  });

  test.for(['token', 'fingerprint'] as const)(
    'takes its place by an admin who admits its %s for it, also when the old one was revoked',
    async (by) => {
      await using t = await startTestLedger();
      const { machine: old } = await enrolled(t);
      await t.fleet.append(t.client, { type: 'revoke-node', node: old.id, reason: 'stolen' });
      const next = new Machine();
      const place = { labels: { zone: 'a' }, replaces: old.id };
      const ticket = t.fleet.admission(place);
      const admission = by === 'token' ? ticket.envelope : t.fleet.admissionOf(next.id, place);
      await t.client.appendEntry(admission);
      const { token } = ticket;
      await enrolBy(t, next, { admission, ...(by === 'token' ? { token } : {}) });
      expect((await t.client.node(old.id)).replacedBy).toBe(next.id);
      expect((await t.client.node(next.id)).name).toBe('edge-1');
    },
  );

  test('by an admin leaves the old one at work until the new one is there', async () => {
    await using t = await startTestLedger();
    const { machine: old } = await enrolled(t);
    const next = new Machine();
    const admission = t.fleet.admissionOf(next.id, { labels: { zone: 'a' }, replaces: old.id });
    await t.client.appendEntry(admission);
    expect((await t.client.node(old.id)).state).toBe('ready');
    await enrolBy(t, next, { admission });
    await expectReplaced(t, old, next);
  });

  test('by an admin has the name of the old one, and no other', async () => {
    await using t = await startTestLedger();
    const { machine: old } = await enrolled(t);
    const next = new Machine();
    const admission = t.fleet.admissionOf(next.id, { name: 'edge-9', replaces: old.id });
    await t.client.appendEntry(admission);
    await expect(enrolBy(t, next, { admission })).rejects.toMatchObject({ code: 'E_NODE_NAME' });
  });

  test('by an admin of other realms does not push the old one out of its own', async () => {
    await using t = await startTestLedger();
    const { machine: old } = await enrolled(t);
    const lab = generateKey().signer;
    const change = t.fleet.grant(lab, 'admin');
    if (change.type !== 'grant') throw new Error('no grant');
    const grant = {
      ...change.grant,
      name: 'lab',
      realms: ['lab'],
      publicKey: base64(lab.publicKey),
    };
    await t.fleet.append(t.client, { type: 'grant', grant });
    const next = new Machine();
    const admission = t.fleet.admissionOf(next.id, {
      ...{ realms: ['lab'], replaces: old.id, signer: lab },
    });
    await t.client.appendEntry(admission);
    await expect(enrolBy(t, next, { admission })).rejects.toMatchObject({ code: 'E_SCOPE' });
    expect((await t.client.node(old.id)).state).toBe('ready');
  });

  test('is not in the place of a node that was replaced already, or never was', async () => {
    await using t = await startTestLedger();
    const { machine: old, admission } = await enrolled(t);
    const next = new Machine();
    await enrolBy(t, next, { admission, replaces: old.id }, old.signer);
    const late = new Machine();
    const stale = t.fleet.admissionOf(late.id, { replaces: old.id });
    const odd = t.fleet.admissionOf(late.id, { name: 'new', replaces: new Machine().id });
    await t.client.appendEntry(stale);
    await t.client.appendEntry(odd);
    await expect(enrolBy(t, late, { admission: stale })).rejects.toMatchObject({
      code: 'E_CONFLICT',
    });
    await expect(enrolBy(t, late, { admission: odd })).rejects.toMatchObject({
      code: 'E_NOT_FOUND',
    });
  });

  test('is told how, when the name is another key’s', async () => {
    await using t = await startTestLedger();
    await enrolled(t);
    const next = new Machine();
    const admission = t.fleet.admissionOf(next.id);
    await t.client.appendEntry(admission);
    await expect(enrolBy(t, next, { admission })).rejects.toMatchObject({
      code: 'E_NODE_NAME',
      hint: expect.stringContaining(`--replaces edge-1`),
    });
  });
});
