import { expect, test } from 'vitest';
import { JOURNAL_LIMITS } from './journal-limits.ts';
import type { Admission } from './run-admission.ts';
import {
  admissionOf,
  committed,
  finished,
  intent,
  journalOfEachTest,
  refusal,
  result,
} from './testing/journal-fixture.ts';

const fixture = journalOfEachTest();

const startRun = (deployment = 'web') => fixture.start({ deployment }, intent(1, null));

/** All that can be read of a run. */
async function readWhole({ run, digest }: Admission) {
  const { runs, secrets } = fixture.journal;
  return {
    entry: await runs.findRun(run),
    byDigest: await runs.findByDigest(digest),
    envelope: await runs.readEnvelope(run),
    events: await runs.readAllEvents(run),
    page: await runs.listEvents(run, { after: 1, limit: 2 }),
    committed: await runs.findCommitted(run),
    receipt: await runs.findReceipt(run),
    given: await secrets.readGiven(run),
  };
}

test('a run is read the same from memory and, in a new process, from the store', async () => {
  const running = await startRun('a');
  const ended = await startRun('b');
  await fixture.append(ended.run, [result(1), committed()]);
  await fixture.succeed(ended.run);
  const before = [await readWhole(running), await readWhole(ended)];
  await fixture.reopen();
  expect([await readWhole(running), await readWhole(ended)]).toEqual(before);
  expect(before[1]?.receipt).toBeDefined();
  expect(before[1]?.committed).toBeDefined();
});

test('what changes a run without an event is seen too', async () => {
  const { run } = await startRun();
  const seen = async () => await fixture.journal.runs.getRun(run);
  await fixture.journal.takeOver(run);
  expect(await seen()).toMatchObject({ epoch: 2, holder: null });
  await fixture.journal.claim(run, { runner: 'r2', epoch: 2, bootId: 'boot-2' });
  const { seq: after } = await seen();
  await fixture.journal.park(run, { by: 'runner', runner: 'r2', epoch: 2, after }, 5);
  expect(await seen()).toMatchObject({ epoch: 3, holder: null, wakeAt: 5 });
});

test('a run that grew large is read from the store, whole', async () => {
  const { run } = await startRun();
  const message = 'x'.repeat(60_000);
  const lines = Math.ceil(JOURNAL_LIMITS.rememberedRunBytesMax / message.length) + 1;
  for (let line = 1; line <= lines; line++) {
    await fixture.append(run, [{ type: 'log', line, message, fields: null }]);
  }
  await fixture.append(run, [result(1), committed()]);
  const events = await fixture.journal.runs.readAllEvents(run);
  expect(events.map(({ seq }) => seq)).toEqual(events.map((_, index) => index + 1));
  expect(events).toHaveLength(lines + 5);
  expect((await fixture.journal.runs.getRun(run)).state).toBe('committed');
});

test('more runs than fit are all there', async () => {
  const message = 'x'.repeat(60_000);
  const admissions: Admission[] = [];
  for (let index = 0; index < 50; index++) {
    const admission = await startRun();
    const lines = [1, 2, 3].map((line) => ({ type: 'log', line, message, fields: null }) as const);
    await fixture.append(admission.run, [result(1), ...lines, committed()]);
    await fixture.succeed(admission.run);
    admissions.push(admission);
  }
  expect(admissions.length * 3 * message.length).toBeGreaterThan(JOURNAL_LIMITS.rememberedBytesMax);
  for (const admission of admissions) {
    expect((await readWhole(admission)).events).toHaveLength(9);
    expect(await fixture.journal.admit(admission)).toMatchObject({ existing: true });
  }
});

test('a dropped run is not remembered', async () => {
  const admission = await startRun();
  const { run } = admission;
  await fixture.append(run, [finished('failed', 'E_SCRIPT')]);
  const { cursors, sweeper, runs } = fixture.journal;
  await cursors.confirm([{ run, told: 100 }]);
  expect(await sweeper.dropRuns(fixture.nowMs + 1, 1)).toBe(1);
  expect(await runs.findRun(run)).toBeUndefined();
  expect(await runs.findByDigest(admission.digest)).toBeUndefined();
  expect(await runs.findReceipt(run)).toBeUndefined();
  expect(await runs.readAllEvents(run)).toEqual([]);
});

test('a plan that was accepted before is the same run, also when only the store knows it', async () => {
  const admission = admissionOf({ mode: 'plan' });
  await fixture.journal.admit(admission);
  await fixture.reopen();
  const again = await fixture.journal.admit(admission);
  expect(again).toMatchObject({ existing: true, entry: { run: admission.run } });
  const other = admissionOf({ mode: 'plan', id: admission.payload.id });
  await expect(fixture.journal.admit(other)).rejects.toThrow(refusal('E_REPLAY'));
});
