import { describe, expect, test } from 'vitest';
import { Machine, startTestLedger } from './testing/ledger-fixture.ts';

describe('enrolment', () => {
  test('makes a node whose name and labels are those of its admission', async () => {
    await using t = await startTestLedger();
    const machine = new Machine();
    const view = await t.enrol(machine, { name: 'edge-7', labels: { zone: 'attic' } });
    expect(view).toMatchObject({
      id: machine.id,
      name: 'edge-7',
      labels: { zone: 'attic' },
      realms: ['default'],
      state: 'ready',
      lastReportAt: null,
      free: { milliCpus: 4000 },
    });
    expect(await t.client.node(machine.id)).toEqual(view);
    const { items } = await t.client.listEntries({ kind: 'enrol', node: machine.id });
    expect(items).toHaveLength(1);
  });

  test('answers the same record when the same key comes again, with token and challenge spent', async () => {
    await using t = await startTestLedger();
    const machine = new Machine();
    const admission = t.fleet.admission();
    await t.client.appendEntry(admission.envelope);
    const { challenge } = await t.client.challenge();
    const enrolment = machine.enrolment(admission, challenge, t.fleet.nowSeconds);
    const first = await t.client.enrol(enrolment);
    expect(await t.client.enrol(enrolment)).toEqual(first);
    const another = await t.client.challenge();
    expect(
      await t.client.enrol(machine.enrolment(admission, another.challenge, t.fleet.nowSeconds)),
    ).toEqual(first);
  });

  test('tells whoever shows a statement from the log nothing that the log does not', async () => {
    await using t = await startTestLedger();
    const machine = new Machine();
    await t.enrol(machine);
    const report = machine.report(7, t.fleet.nowMs(), { bootId: 'boot-2', milliCpus: 7 });
    await t.clientOf(machine).report(machine.id, [report]);
    const { items } = await t.client.listEntries({ kind: 'enrol', node: machine.id });
    const [logged] = items;
    if (logged === undefined) throw new Error('no enrolment');
    const stranger = t.clientOf(new Machine());
    const view = await stranger.enrol(logged.envelope);
    expect(view).toMatchObject({ lastReportAt: null, bootId: 'boot-1', uptimeMs: 0 });
    expect(view.free.milliCpus).toBe(4000);
    expect(view).not.toHaveProperty('authoritySeq');
  });

  test('lets one of several at once through with the same token', async () => {
    await using t = await startTestLedger();
    const admission = t.fleet.admission();
    await t.client.appendEntry(admission.envelope);
    const machines = Array.from({ length: 5 }, () => new Machine());
    const outcomes = await Promise.allSettled(
      machines.map(async (machine) => {
        const { challenge } = await t.client.challenge();
        return await t.client.enrol(machine.enrolment(admission, challenge, t.fleet.nowSeconds));
      }),
    );
    expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
    for (const outcome of outcomes) {
      // One that was a moment later finds the name taken too; which is seen first is chance.
      if (outcome.status === 'rejected') {
        expect(['E_TOKEN', 'E_NODE_NAME']).toContain(outcome.reason.code);
      }
    }
    expect((await t.client.listNodes()).items).toHaveLength(1);
  });

  test('answers a doubled request that arrives twice at once with one record', async () => {
    await using t = await startTestLedger();
    const machine = new Machine();
    const admission = t.fleet.admission();
    await t.client.appendEntry(admission.envelope);
    const challenges = await Promise.all([t.client.challenge(), t.client.challenge()]);
    const views = await Promise.all(
      challenges.map(({ challenge }) =>
        t.client.enrol(machine.enrolment(admission, challenge, t.fleet.nowSeconds)),
      ),
    );
    expect(views[0]).toEqual(views[1]);
  });

  test('refuses a name that another key has', async () => {
    await using t = await startTestLedger();
    await t.enrol(new Machine(), { name: 'edge-1' });
    await expect(t.enrol(new Machine(), { name: 'edge-1' })).rejects.toMatchObject({
      code: 'E_NODE_NAME',
    });
  });

  test('refuses an admission the ledger does not have', async () => {
    await using t = await startTestLedger();
    const { challenge } = await t.client.challenge();
    const enrolment = new Machine().enrolment(t.fleet.admission(), challenge, t.fleet.nowSeconds);
    await expect(t.client.enrol(enrolment)).rejects.toMatchObject({ code: 'E_TOKEN' });
  });

  test('refuses a token other than the admitted one', async () => {
    await using t = await startTestLedger();
    const admission = t.fleet.admission();
    await t.client.appendEntry(admission.envelope);
    const { challenge } = await t.client.challenge();
    const wrong = { ...admission, token: t.fleet.admission().token };
    await expect(
      t.client.enrol(new Machine().enrolment(wrong, challenge, t.fleet.nowSeconds)),
    ).rejects.toMatchObject({ code: 'E_TOKEN', where: { path: 'token' } });
  });

  test.for([
    ['was never given out', async () => 'AAAAAAAAAAAAAAAAAAAAAA'],
    [
      'has expired',
      async (t: Awaited<ReturnType<typeof startTestLedger>>) => {
        const { challenge } = await t.client.challenge();
        t.advance(60_001);
        return challenge;
      },
    ],
    [
      'was spent by another node',
      async (t: Awaited<ReturnType<typeof startTestLedger>>) => {
        const admission = t.fleet.admission({ name: 'other' });
        await t.client.appendEntry(admission.envelope);
        const { challenge } = await t.client.challenge();
        await t.client.enrol(new Machine().enrolment(admission, challenge, t.fleet.nowSeconds));
        return challenge;
      },
    ],
  ] as const)('refuses a challenge that %s', async ([, obtain]) => {
    await using t = await startTestLedger();
    const admission = t.fleet.admission();
    await t.client.appendEntry(admission.envelope);
    const challenge = await obtain(t);
    await expect(
      t.client.enrol(new Machine().enrolment(admission, challenge, t.fleet.nowSeconds)),
    ).rejects.toMatchObject({ code: 'E_CHALLENGE' });
    const { items } = await t.client.listNodes();
    expect(items.filter(({ name }) => name === 'edge-1')).toEqual([]);
  });

  test('refuses an admission that has expired, and one by a key that is no admin', async () => {
    await using t = await startTestLedger();
    const expired = t.fleet.admission({ lifetimeSeconds: 60 });
    await t.client.appendEntry(expired.envelope);
    t.advance(61_000);
    const { challenge } = await t.client.challenge();
    await expect(
      t.client.enrol(new Machine().enrolment(expired, challenge, t.fleet.nowSeconds)),
    ).rejects.toMatchObject({ code: 'E_TOKEN' });
    await expect(
      t.client.appendEntry(t.fleet.admission({ signer: new Machine().signer }).envelope),
    ).rejects.toMatchObject({ code: 'E_UNKNOWN_KEY' });
  });

  test('refuses an enrolment signed by another key than it brings', async () => {
    await using t = await startTestLedger();
    const admission = t.fleet.admission();
    await t.client.appendEntry(admission.envelope);
    const { challenge } = await t.client.challenge();
    const enrolment = new Machine().enrolment(admission, challenge, t.fleet.nowSeconds);
    const thief = new Machine().enrolment(admission, challenge, t.fleet.nowSeconds);
    await expect(
      t.client.enrol({ ...enrolment, signatures: thief.signatures }),
    ).rejects.toMatchObject({ code: 'E_UNKNOWN_KEY' });
  });
});
