import { HyphaError } from '@hypha/protocol';
import { expect, test } from 'vitest';
import {
  finished,
  intent,
  journalOfEachTest,
  refusal,
  result,
  started,
} from './testing/journal-fixture.ts';

const fixture = journalOfEachTest();

const ownerOf = (epoch: number, runner = 'r1') => ({ runner, epoch, bootId: 'boot-1' });
const WAKE_AT = 1_800_000_500_000;

const startRun = () => fixture.start({}, intent(1, null));

async function park(run: string, epoch = 1, runner = 'r1') {
  const { seq: after } = await fixture.journal.runs.getRun(run);
  return await fixture.journal.park(run, { by: 'runner', runner, epoch, after }, WAKE_AT);
}

test('a parked run is owned by nobody, in the next epoch, and says when it is to wake', async () => {
  const { run } = await startRun();
  const entry = await park(run);
  expect(entry).toMatchObject({ state: 'running', epoch: 2, holder: null, wakeAt: WAKE_AT });
  expect(fixture.journal.findUnfinished(run)).toEqual(entry);
  await fixture.reopen();
  expect(fixture.journal.findUnfinished(run)).toEqual(entry);
});

test('who parked a run can write to it no more', async () => {
  const { run } = await startRun();
  await park(run);
  const stale = refusal('E_STALE_EPOCH');
  await expect(fixture.append(run, [result(1)])).rejects.toThrow(stale);
  await expect(fixture.journal.reattach(run, ownerOf(1))).rejects.toThrow(stale);
});

test('parking again after a lost answer says the same, also after a restart', async () => {
  const { run } = await startRun();
  const entry = await park(run);
  expect(await park(run)).toEqual(entry);
  await fixture.reopen();
  expect(await park(run)).toEqual(entry);
  await fixture.journal.claim(run, ownerOf(2, 'r2'));
  await expect(park(run)).rejects.toThrow(refusal('E_STALE_EPOCH'));
});

test('the claim of the new epoch clears the time to wake, durably with its first append', async () => {
  const { run } = await startRun();
  await park(run);
  const claimed = await fixture.journal.claim(run, ownerOf(2, 'r2'));
  expect(claimed).toMatchObject({ holder: 'r2', wakeAt: null });
  await fixture.reopen();
  // Nothing was written, so nothing was done: it waits as before.
  expect(fixture.journal.findUnfinished(run)).toMatchObject({ holder: null, wakeAt: WAKE_AT });
  await fixture.journal.claim(run, ownerOf(2, 'r2'));
  await fixture.append(run, [started(), result(1)], { runner: 'r2', epoch: 2 });
  await fixture.reopen();
  expect(fixture.journal.findUnfinished(run)).toMatchObject({ holder: 'r2', wakeAt: null });
  expect(await park(run, 2, 'r2')).toMatchObject({ epoch: 3, wakeAt: WAKE_AT });
});

test.for(['park', 'takeOver'] as const)(
  'who has only claimed a run owns it still when its %s cannot be written',
  async (way) => {
    const { run } = await startRun();
    await park(run);
    const { journal } = fixture;
    await journal.claim(run, ownerOf(2));
    fixture.holdNextWrite().fail(new HyphaError('E_STORAGE', 'the disk is full'));
    const ended = way === 'park' ? park(run, 2) : journal.takeOver(run);
    await expect(ended).rejects.toThrow(refusal('E_STORAGE'));
    expect(journal.findUnfinished(run)).toMatchObject({ holder: 'r1', epoch: 2 });
    await fixture.append(run, [started(), result(1)], { runner: 'r1', epoch: 2 });
    expect(await park(run, 2)).toMatchObject({ epoch: 3, holder: null });
  },
);

test('only the owner of a running run parks it, and only knowing all of its events', async () => {
  const { run } = await startRun();
  const { journal } = fixture;
  const author = { by: 'runner', runner: 'r1', epoch: 1, after: 3 } as const;
  const parkAs = (change: Partial<typeof author> | { runner: string } | { after: number }) =>
    journal.park(run, { ...author, ...change }, WAKE_AT);
  await expect(parkAs({ runner: 'r2' })).rejects.toThrow(refusal('E_STALE_EPOCH'));
  await expect(parkAs({ after: 2 })).rejects.toThrow(refusal('E_CONFLICT'));
  await fixture.append(run, [{ type: 'undo-intent', step: 1 }]);
  await expect(parkAs({ after: 4 })).rejects.toThrow(refusal('E_CONFLICT'));
  await fixture.append(run, [finished('failed', 'E_SCRIPT')]);
  await expect(parkAs({ after: 5 })).rejects.toThrow();
});

test('a cancel wakes a parked run, and one that is cancelled does not wait', async () => {
  const { run, digest, keyids } = await startRun();
  await park(run);
  const cancel = {
    ...{ digest: 'c'.repeat(64), target: digest, realm: 'default', keyids },
    ...{ mayCancelAny: false, receivedAtMs: fixture.nowMs, forgetAtSeconds: 0 },
  };
  const { runs } = await fixture.journal.cancel(cancel);
  const woken = { state: 'running', holder: null, epoch: 2, wakeAt: null };
  expect(runs).toMatchObject([{ ...woken, cancelRequestedAt: fixture.nowMs }]);
  await fixture.reopen();
  expect(fixture.journal.findUnfinished(run)).toMatchObject(woken);
  await fixture.journal.claim(run, ownerOf(2));
  await fixture.append(run, [started()], { runner: 'r1', epoch: 2 });
  expect(await park(run, 2)).toMatchObject({ epoch: 3, wakeAt: null });
});
