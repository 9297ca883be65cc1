import { afterEach, beforeEach, expect, test } from 'vitest';
import {
  admissionOf,
  createJournalFixture,
  finished,
  type JournalFixture,
  started,
} from './journal-fixture.ts';

let fixture: JournalFixture;
beforeEach(async () => {
  fixture = await createJournalFixture();
});
afterEach(async () => {
  await fixture[Symbol.asyncDispose]();
});

const destinations = {
  events: 'coordinator',
  receipts: { destination: 'ledger', topic: 'receipts' },
};

test('a run is in the backlog until its events and its receipt are confirmed', async () => {
  const { run } = admissionOf();
  const admission = admissionOf();
  await fixture.journal.admit(admission);
  const backlog = () => fixture.journal.cursors.listBacklog('coordinator', 10);
  const confirm = (seq: number) =>
    fixture.journal.cursors.advance('coordinator', [{ topic: admission.run, seq }]);
  expect(await backlog()).toEqual([
    { run: admission.run, source: 'http', sent: 0, seq: 1, ended: false },
  ]);
  await confirm(1);
  expect(await backlog()).toEqual([]);
  await fixture.journal.claim(admission.run, { runner: 'r1', epoch: 1, bootId: 'b' });
  await fixture.append(admission.run, [started(), finished('failed')]);
  expect(await backlog()).toMatchObject([{ sent: 1, seq: 3, ended: true }]);
  await confirm(3);
  expect(await backlog()).toMatchObject([{ sent: 3, seq: 3, ended: true }]);
  await confirm(2);
  expect(await backlog()).toMatchObject([{ sent: 3 }]);
  await confirm(4);
  expect(await backlog()).toEqual([]);
  expect(await fixture.journal.runs.findRun(run)).toBeUndefined();
});

test('an old run is dropped whole, but never before everybody has it', async () => {
  const admission = admissionOf();
  await fixture.journal.admit(admission);
  await fixture.journal.claim(admission.run, { runner: 'r1', epoch: 1, bootId: 'b' });
  await fixture.append(admission.run, [started(), finished('failed')]);
  const later = fixture.nowMs + 1;
  const sweep = () => fixture.journal.sweeper.dropRuns(later, destinations);
  expect(await sweep()).toBe(0);
  await fixture.journal.cursors.advance('coordinator', [{ topic: admission.run, seq: 4 }]);
  expect(await sweep()).toBe(0);
  await fixture.journal.cursors.advance('ledger', [{ topic: 'receipts', seq: 1 }]);
  expect(await fixture.journal.sweeper.dropRuns(fixture.nowMs, destinations)).toBe(0);
  expect(await sweep()).toBe(1);
  expect(await fixture.journal.runs.findRun(admission.run)).toBeUndefined();
  expect(await fixture.journal.runs.readAllEvents(admission.run)).toEqual([]);
});
