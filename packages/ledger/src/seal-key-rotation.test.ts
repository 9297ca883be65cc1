import { base64 } from '@hypha/protocol';
import { describe, expect, test } from 'vitest';
import { enrolBy, statementOf } from './testing/enrolment-rig.ts';
import { Machine, startTestLedger } from './testing/ledger-fixture.ts';

const keyOf = (byte: number) => base64(new Uint8Array(32).fill(byte));

describe('the key that secrets are sealed to', () => {
  test('changes by a later statement of the same node, which is in the log', async () => {
    await using t = await startTestLedger();
    const machine = new Machine();
    expect(await t.enrol(machine)).toMatchObject({ sealKey: keyOf(9), name: 'edge-1' });
    t.advance(1000);
    expect(await enrolBy(t, machine, { sealKey: keyOf(7) })).toMatchObject({ sealKey: keyOf(7) });
    expect(await t.client.node(machine.id)).toMatchObject({ sealKey: keyOf(7), name: 'edge-1' });
    const { items } = await t.client.listEntries({ kind: 'enrol', node: machine.id });
    expect(items).toHaveLength(2);
  });

  test('stays with the statement that was made last', async () => {
    await using t = await startTestLedger();
    const machine = new Machine();
    await t.enrol(machine);
    const older = t.fleet.nowSeconds;
    t.advance(10_000);
    const rotation = await statementOf(t, machine, { sealKey: keyOf(7) });
    await t.client.enrol(rotation);
    await expect(enrolBy(t, machine, { sealKey: keyOf(9), iat: older })).rejects.toMatchObject({
      code: 'E_REPLAY',
      where: { path: 'iat' },
    });
    t.advance(10_000);
    await enrolBy(t, machine, { sealKey: keyOf(8) });
    // Word for word again: its key is not the current one any more, and it is older.
    await expect(t.client.enrol(rotation)).rejects.toMatchObject({ code: 'E_REPLAY' });
    expect((await t.client.node(machine.id)).sealKey).toBe(keyOf(8));
  });

  test('cannot be changed with a challenge that was used', async () => {
    await using t = await startTestLedger();
    const machine = new Machine();
    await t.enrol(machine);
    t.advance(1000);
    await expect(
      enrolBy(t, machine, { sealKey: keyOf(7), challenge: 'A'.repeat(22) }),
    ).rejects.toMatchObject({ code: 'E_CHALLENGE' });
  });

  test('cannot be named from the future, after which no other could follow', async () => {
    await using t = await startTestLedger();
    const machine = new Machine();
    await t.enrol(machine);
    const iat = t.fleet.nowSeconds + 3600;
    await expect(enrolBy(t, machine, { sealKey: keyOf(7), iat })).rejects.toMatchObject({
      code: 'E_NOT_YET',
    });
    await expect(enrolBy(t, new Machine(), { iat })).rejects.toMatchObject({ code: 'E_NOT_YET' });
  });

  test('cannot be changed by another node, nor for a revoked one', async () => {
    await using t = await startTestLedger();
    const [machine, thief] = [new Machine(), new Machine()];
    await t.enrol(machine);
    t.advance(1000);
    const forged = await statementOf(t, machine, { sealKey: keyOf(7) });
    const { signatures } = await statementOf(t, thief, { sealKey: keyOf(7) });
    await expect(t.client.enrol({ ...forged, signatures })).rejects.toMatchObject({
      code: 'E_UNKNOWN_KEY',
    });
    await t.fleet.append(t.client, { type: 'revoke-node', node: machine.id, reason: 'stolen' });
    await expect(enrolBy(t, machine, { sealKey: keyOf(7) })).rejects.toMatchObject({
      code: 'E_KEY_REVOKED',
    });
    expect((await t.client.node(machine.id)).sealKey).toBe(keyOf(9));
  });
});
