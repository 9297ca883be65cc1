import { describe, expect, test } from 'vitest';
import { LEDGER_LIMITS } from './ledger-limits.ts';
import { enrolBy, pendingIds, statementOf } from './testing/enrolment-rig.ts';
import { Machine, startTestLedger } from './testing/ledger-fixture.ts';

describe('a node that nobody has admitted', () => {
  test('is refused with its fingerprint, listed for admins, and in no log', async () => {
    await using t = await startTestLedger();
    const machine = new Machine();
    const entries = (await t.client.listEntries({})).items.length;
    await expect(enrolBy(t, machine)).rejects.toMatchObject({
      code: 'E_PENDING',
      message: expect.stringContaining(machine.id),
      hint: expect.stringContaining(`hypha node admit ${machine.id}`),
    });
    expect((await t.client.listNodes({ state: 'pending' })).items).toMatchObject([
      { id: machine.id, state: 'pending', labels: {}, realms: [], facts: { hostname: 'edge-1' } },
    ]);
    expect((await t.client.listNodes()).items).toEqual([]);
    expect((await t.client.listEntries({})).items).toHaveLength(entries);
    await expect(t.client.node(machine.id)).rejects.toMatchObject({ code: 'E_NOT_FOUND' });
  });

  test('may read nothing and report nothing', async () => {
    await using t = await startTestLedger();
    const machine = new Machine();
    await expect(enrolBy(t, machine)).rejects.toMatchObject({ code: 'E_PENDING' });
    const client = t.clientOf(machine);
    const refused = { code: 'E_UNAUTHENTICATED' };
    await expect(client.listNodes()).rejects.toMatchObject(refused);
    await expect(client.report(machine.id, [machine.report(1, 1)])).rejects.toMatchObject(refused);
    await expect(
      client.appendEntry(machine.receipt(1, 'a'.repeat(64)).envelope),
    ).rejects.toMatchObject({ code: 'E_UNKNOWN_KEY' });
  });

  test('joins once an admin has admitted its fingerprint, with what the admission says', async () => {
    await using t = await startTestLedger();
    const machine = new Machine();
    await expect(enrolBy(t, machine)).rejects.toMatchObject({ code: 'E_PENDING' });
    const admission = t.fleet.admissionOf(machine.id, { name: 'attic', labels: { zone: 'top' } });
    await t.client.appendEntry(admission);
    const { items } = await t.client.listEntries({ kind: 'admission', node: machine.id });
    expect(items.map(({ envelope }) => envelope)).toEqual([admission]);
    const view = await enrolBy(t, machine, { admission });
    expect(view).toMatchObject({ id: machine.id, name: 'attic', labels: { zone: 'top' } });
    expect(view.state).toBe('ready');
    expect(await pendingIds(t.client)).toEqual([]);
  });

  test('does not join by the admission of another', async () => {
    await using t = await startTestLedger();
    const [machine, other] = [new Machine(), new Machine()];
    const admission = t.fleet.admissionOf(other.id);
    await t.client.appendEntry(admission);
    await expect(enrolBy(t, machine, { admission })).rejects.toMatchObject({ code: 'E_TOKEN' });
    expect((await t.client.listNodes()).items).toEqual([]);
  });

  test('does not join by an admission that the ledger does not have, or that has expired', async () => {
    await using t = await startTestLedger();
    const machine = new Machine();
    const kept = t.fleet.admissionOf(machine.id, { lifetimeSeconds: 60 });
    await expect(enrolBy(t, machine, { admission: kept })).rejects.toMatchObject({
      code: 'E_TOKEN',
    });
    await t.client.appendEntry(kept);
    t.advance(61_000);
    await expect(enrolBy(t, machine, { admission: kept })).rejects.toMatchObject({
      code: 'E_TOKEN',
    });
    // Another one for the same key is as good as the first was.
    const again = t.fleet.admissionOf(machine.id);
    await t.client.appendEntry(again);
    expect(await enrolBy(t, machine, { admission: again })).toMatchObject({ id: machine.id });
  });

  test('is one entry however often it asks, and gone a day after it asked last', async () => {
    await using t = await startTestLedger();
    const [patient, silent] = [new Machine(), new Machine()];
    for (const machine of [patient, silent, patient]) {
      await expect(enrolBy(t, machine)).rejects.toMatchObject({ code: 'E_PENDING' });
    }
    expect(await pendingIds(t.client)).toEqual([patient.id, silent.id].sort());
    t.advance(LEDGER_LIMITS.pendingMs / 2);
    await expect(enrolBy(t, patient)).rejects.toMatchObject({ code: 'E_PENDING' });
    t.advance(LEDGER_LIMITS.pendingMs / 2);
    expect(await pendingIds(t.client)).toEqual([patient.id]);
  });

  test('of an address that has its share is refused, and those that wait go on waiting', async () => {
    await using t = await startTestLedger();
    const machines = Array.from({ length: LEDGER_LIMITS.pendingPerAddress }, () => new Machine());
    for (const machine of machines) {
      await expect(enrolBy(t, machine)).rejects.toMatchObject({ code: 'E_PENDING' });
    }
    await expect(enrolBy(t, new Machine())).rejects.toMatchObject({ code: 'E_RATE' });
    for (const machine of machines.slice(0, 2)) {
      await expect(enrolBy(t, machine)).rejects.toMatchObject({ code: 'E_PENDING' });
    }
    expect(await pendingIds(t.client)).toHaveLength(LEDGER_LIMITS.pendingPerAddress);
  });

  test('needs a challenge of its own for each request', async () => {
    await using t = await startTestLedger();
    const statement = await statementOf(t, new Machine());
    await expect(t.client.enrol(statement)).rejects.toMatchObject({ code: 'E_PENDING' });
    await expect(t.client.enrol(statement)).rejects.toMatchObject({ code: 'E_CHALLENGE' });
  });

  test('is shown to no one any more when it was revoked', async () => {
    await using t = await startTestLedger();
    const machine = new Machine();
    await expect(enrolBy(t, machine)).rejects.toMatchObject({ code: 'E_PENDING' });
    await t.fleet.append(t.client, { type: 'revoke-node', node: machine.id, reason: 'unknown' });
    expect(await pendingIds(t.client)).toEqual([]);
    await expect(enrolBy(t, machine)).rejects.toMatchObject({ code: 'E_KEY_REVOKED' });
  });
});
