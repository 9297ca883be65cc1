import { expect, test } from 'vitest';
import {
  admissionOf,
  finished,
  journalOfEachTest,
  OWNER,
  started,
} from './testing/journal-fixture.ts';

const fixture = journalOfEachTest();

test('a run is in the backlog until its events and its receipt are confirmed', async () => {
  const { run } = admissionOf();
  const admission = admissionOf();
  await fixture.journal.admit(admission);
  const { cursors } = fixture.journal;
  const backlog = () => cursors.listBacklog(10);
  const confirm = (told: number) => cursors.confirm([{ run: admission.run, told }]);
  expect(await backlog()).toEqual([
    { run: admission.run, source: 'http', told: 0, seq: 1, ended: false },
  ]);
  await confirm(1);
  expect(await backlog()).toEqual([]);
  await fixture.journal.claim(admission.run, OWNER);
  await fixture.append(admission.run, [started(), finished('failed')]);
  expect(await backlog()).toMatchObject([{ told: 1, seq: 3, ended: true }]);
  await confirm(3);
  expect(await backlog()).toMatchObject([{ told: 3, seq: 3, ended: true }]);
  await confirm(2);
  expect(await backlog()).toMatchObject([{ told: 3 }]);
  await confirm(4);
  expect(await backlog()).toEqual([]);
  await cursors.rewind(admission.run, 0);
  expect(await backlog()).toMatchObject([{ told: 0 }]);
  expect(await fixture.journal.runs.findRun(run)).toBeUndefined();
});

test('a cursor never goes back', async () => {
  const { cursors } = fixture.journal;
  expect(await cursors.read('ledger', 'receipts')).toBe(0);
  await cursors.advance('ledger', 'receipts', 5);
  await cursors.advance('ledger', 'receipts', 3);
  await fixture.reopen();
  expect(await fixture.journal.cursors.read('ledger', 'receipts')).toBe(5);
});

test('an old run is dropped whole, but never before everybody has it', async () => {
  const admission = await fixture.start({}, finished('failed'));
  const { cursors, sweeper, runs } = fixture.journal;
  const later = fixture.nowMs + 1;
  expect(await sweeper.dropRuns(later, 1)).toBe(0);
  await cursors.confirm([{ run: admission.run, told: 4 }]);
  expect(await sweeper.dropRuns(later, 0)).toBe(0);
  expect(await sweeper.dropRuns(fixture.nowMs, 1)).toBe(0);
  expect(await sweeper.dropRuns(later, 1)).toBe(1);
  expect(await runs.findRun(admission.run)).toBeUndefined();
  expect(await runs.readAllEvents(admission.run)).toEqual([]);
});
