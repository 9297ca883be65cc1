/** A node whose journal is gone cannot tell what has run there, and refuses it (security notes §1.5). */
import { expect, test } from 'vitest';
import { NodeFixture, nodeOfAllTests, until } from './testing/node-fixture.ts';

const fixture = await nodeOfAllTests();

test('what was signed before the journal began is refused, whether it ran or not; new work runs', async () => {
  const ran = fixture.sign(`await container('once', {});`, { deployment: 'once' });
  const kept = fixture.sign(`await container('kept', {});`, { deployment: 'kept' });
  expect(await fixture.waitForEnd(await fixture.submit(ran))).toMatchObject({ state: 'succeeded' });
  await fixture.supervisor.kill('SIGKILL');
  await fixture.loseJournal();
  // A journal that begins in the very second of a signature cannot tell which was first.
  const signedAt = Math.floor(Date.now() / 1000);
  await until('the next second', () => Math.floor(Date.now() / 1000) > signedAt);
  await fixture.startSupervisor();
  await until('the node is back', () => fixture.isReady());
  for (const envelope of [ran, kept]) {
    await expect(fixture.api.submit({ envelope })).rejects.toMatchObject({ code: 'E_REPLAY' });
  }
  const fresh = fixture.sign(`await container('fresh', {});`, { deployment: 'fresh' });
  const run = await fixture.submit(fresh);
  expect(await fixture.waitForEnd(run)).toMatchObject({ state: 'succeeded' });
  expect(fixture.sals.effects().filter((effect) => effect === 'make kept')).toEqual([]);
  // Its receipts begin again, and the ledger takes them.
  await until('the receipt is in the ledger', async () => {
    const { items } = await fixture.ledger.listEntries({ kind: 'receipt', run });
    return items.length === 1;
  });
});

test('work that was signed while a node without any work was down is no replay', async () => {
  await using idle = await NodeFixture.start();
  await until('the journal knows when it began', () =>
    idle.supervisor.log.includes('the beginning of the journal is known'),
  );
  await idle.supervisor.kill('SIGKILL');
  const envelope = idle.sign(`await container('late', {});`, { deployment: 'late' });
  // Longer than clocks may disagree, as the new process would see it.
  await idle.backdateJournal(3600);
  await idle.startSupervisor();
  await until('the node is back', () => idle.isReady());
  const run = await idle.submit(envelope);
  expect(await idle.waitForEnd(run)).toMatchObject({ state: 'succeeded' });
});
