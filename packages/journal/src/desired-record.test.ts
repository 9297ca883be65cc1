import type { ScriptPayloadInput } from '@hypha/protocol';
import { expect, test } from 'vitest';
import {
  committed,
  desiredOf,
  finished,
  intent,
  journalOfEachTest,
  result,
} from './testing/journal-fixture.ts';

const fixture = journalOfEachTest();

const web = desiredOf('container', 'web');
const data = desiredOf('volume', 'data');

const startRun = async (change?: Partial<ScriptPayloadInput>) => (await fixture.start(change)).run;

test('a declared resource is provisional until its run commits', async () => {
  const run = await startRun();
  await fixture.append(run, [intent(1, web)]);
  expect(fixture.statuses()).toEqual({ web: 'provisional' });
  await fixture.append(run, [result(1), committed(web)]);
  expect(fixture.statuses()).toEqual({ web: 'committed' });
  const [record] = fixture.journal.records.listRecords();
  expect(record).toMatchObject({ ...web, createdBy: run, lastOp: `${run}/1`, unsettled: true });
});

test('steps and commit in one append mean the same', async () => {
  const run = await startRun();
  await fixture.append(run, [intent(1, web), result(1), committed(web)]);
  const [record] = fixture.journal.records.listRecords();
  expect(record).toMatchObject({ createdBy: run, lastOp: `${run}/1` });
  expect(fixture.statuses()).toEqual({ web: 'committed' });
});

test('what is no longer declared is removed, but volumes are retained', async () => {
  await fixture.apply({}, web, data);
  await fixture.apply({}, desiredOf('container', 'api'));
  expect(fixture.statuses()).toEqual({ api: 'committed', web: 'removing', data: 'retained' });
});

test('only a signed deleteData removes a volume, declared before or retained', async () => {
  await fixture.apply({}, data, desiredOf('volume', 'old'));
  await fixture.apply({ deleteData: ['other'] });
  expect(fixture.statuses()).toEqual({ data: 'retained', old: 'retained' });
  await fixture.apply({ deleteData: ['data'], mode: 'destroy' });
  expect(fixture.statuses()).toEqual({ data: 'removing', old: 'retained' });
  const records = fixture.journal.records.listRecords();
  expect(records.map(({ name, deleteData }) => [name, deleteData])).toEqual([
    ['data', true],
    ['old', false],
  ]);
});

test('a retained volume that is declared again keeps its maker', async () => {
  const first = await fixture.apply({}, data);
  await fixture.apply({});
  const third = await startRun();
  await fixture.append(third, [intent(1, data, 'no-op'), result(1), committed(data)]);
  const [record] = fixture.journal.records.listRecords();
  expect(record).toMatchObject({ status: 'committed', createdBy: first, lastOp: `${first}/1` });
});

test('undo drops what was provisional and the committed record stands', async () => {
  await fixture.apply({}, web);
  const run = await startRun();
  const bigger = desiredOf('container', 'web', 2);
  await fixture.append(run, [intent(1, bigger, 'update'), result(1), intent(2, data)]);
  expect(fixture.statuses()).toEqual({ web: 'provisional', data: 'provisional' });
  for (const step of [2, 1]) {
    await fixture.append(run, [
      { type: 'undo-intent', step },
      { type: 'undo-result', step, leftover: null },
    ]);
  }
  await fixture.append(run, [finished('failed', 'E_SCRIPT')]);
  expect(fixture.statuses()).toEqual({ web: 'committed' });
  const [record] = fixture.journal.records.listRecords();
  expect(record?.specHash).toBe(web.specHash);
});

test('undo of the second step on a resource restores the first', async () => {
  const run = await startRun();
  const bigger = desiredOf('container', 'web', 2);
  const steps = [intent(1, web), result(1), intent(2, bigger, 'update'), result(2)];
  await fixture.append(run, steps);
  const inForce = () =>
    fixture.journal.records.readWorld().provisional.map(({ specHash }) => specHash);
  expect(inForce()).toEqual([bigger.specHash]);
  await fixture.append(run, [
    { type: 'undo-intent', step: 2 },
    { type: 'undo-result', step: 2, leftover: null },
  ]);
  expect(inForce()).toEqual([web.specHash]);
});

test('what undo could not remove is handed to the reconciler, data is only listed', async () => {
  const run = await startRun();
  await fixture.append(run, [intent(1, web), result(1), intent(2, data)]);
  await fixture.append(run, [
    { type: 'undo-intent', step: 1 },
    { type: 'undo-result', step: 1, leftover: 'device is busy' },
    finished('failed', 'E_SAL'),
  ]);
  expect(fixture.statuses()).toEqual({ web: 'removing', data: 'retained' });
});

test('a replacement that was given up makes the record unsettled, an update does not', async () => {
  const api = desiredOf('container', 'api');
  await fixture.apply({}, web, api);
  const { records } = fixture.journal;
  for (const record of records.listRecords()) await records.markSettled(record);
  const run = await startRun();
  await fixture.append(run, [intent(1, desiredOf('container', 'web', 2), 'replace'), result(1)]);
  await fixture.append(run, [intent(2, desiredOf('container', 'api', 2), 'update'), result(2)]);
  await fixture.append(run, [finished('failed', 'E_SAL')]);
  await fixture.reopen();
  const after = fixture.journal.records.listRecords();
  expect(after.find(({ name }) => name === 'web')).toMatchObject({
    ...web,
    status: 'committed',
    unsettled: true,
  });
  expect(after.find(({ name }) => name === 'api')).toMatchObject({ ...api, unsettled: false });
});

test('a kept failure stays provisional and reserved until the next commit', async () => {
  const run = await startRun({ onFailure: 'keep' });
  await fixture.append(run, [intent(1, web), result(1)]);
  await fixture.append(run, [finished('failed', 'E_SCRIPT')]);
  await fixture.reopen();
  expect(fixture.statuses()).toEqual({ web: 'provisional' });
  expect(fixture.journal.reserved().milliCpus).toBe(1000);
  await fixture.apply({}, desiredOf('container', 'api'));
  expect(fixture.statuses()).toEqual({ api: 'committed', web: 'removing' });
  expect(fixture.journal.reserved().milliCpus).toBe(500);
});

test('what a kept failure found as it should be is nothing that it keeps', async () => {
  await fixture.apply({}, web);
  const before = fixture.journal.reserved();
  const run = await startRun({ onFailure: 'keep' });
  await fixture.append(run, [intent(1, web, 'no-op'), result(1)]);
  expect(fixture.statuses()).toEqual({ web: 'provisional' });
  await fixture.append(run, [finished('failed', 'E_SCRIPT')]);
  await fixture.reopen();
  expect(fixture.statuses()).toEqual({ web: 'committed' });
  expect(fixture.journal.reserved()).toEqual(before);
});

test('a record that changed while it was being removed stands', async () => {
  await fixture.apply({}, web);
  await fixture.apply({});
  const [removing] = fixture.journal.records.listRecords();
  if (removing === undefined) throw new Error('the record is there');
  await fixture.apply({}, web);
  expect(await fixture.journal.records.dropRecord(removing)).toBe(false);
  expect(fixture.statuses()).toEqual({ web: 'committed' });
  await fixture.apply({});
  const [again] = fixture.journal.records.listRecords();
  if (again === undefined) throw new Error('the record is there');
  expect(await fixture.journal.records.dropRecord(again)).toBe(true);
  expect(fixture.statuses()).toEqual({});
});

/** Deterministic choices, so that a failure can be repeated. */
function choices(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

test.for([1, 2, 3])('memory and store tell the same after any history (seed %i)', async (seed) => {
  const choose = choices(seed);
  const names = ['a', 'b', 'c'] as const;
  for (let round = 0; round < 8; round++) {
    const keep = choose(3) === 0;
    const run = await startRun({
      onFailure: keep ? 'keep' : 'undo',
      deleteData: choose(2) === 0 ? ['a'] : [],
    });
    const declared = new Map<string, ReturnType<typeof desiredOf>>();
    const steps = choose(4);
    for (let step = 1; step <= steps; step++) {
      const name = names[choose(3)] ?? 'a';
      const resource = desiredOf(choose(2) === 0 ? 'volume' : 'container', name, choose(3));
      const action = ['create', 'update', 'no-op'][choose(3)] ?? 'create';
      await fixture.append(run, [intent(step, resource, action)]);
      if (choose(5) > 0) await fixture.append(run, [result(step)]);
      else if (choose(2) === 0) break;
      else await fixture.append(run, [failure(step)]);
      declared.set(resource.rid, resource);
    }
    const open = await openSteps(run);
    if (choose(2) === 0 && open.length === 0) {
      await fixture.append(run, [committed(...declared.values())]);
      await fixture.succeed(run);
    } else {
      if (!keep) await undoSome(run, choose);
      await fixture.append(run, [finished('failed', 'E_SCRIPT')]);
    }
    for (const record of fixture.journal.records.listRecords()) {
      const fate = choose(3);
      if (fate === 0) await fixture.journal.records.dropRecord(record);
      if (fate === 1) await fixture.journal.records.markSettled(record);
    }
    const { records } = fixture.journal;
    const before = [records.listRecords(), records.listProvisional(), fixture.journal.reserved()];
    await fixture.reopen();
    const { records: again } = fixture.journal;
    const after = [again.listRecords(), again.listProvisional(), fixture.journal.reserved()];
    expect(after).toEqual(before);
  }
});

const failure = (step: number) =>
  ({
    type: 'step-error',
    step,
    error: { code: 'E_SAL', message: 'no' },
    durationMs: 1,
  }) as const;

async function openSteps(run: string): Promise<number[]> {
  const open = new Set<number>();
  for (const { body } of await fixture.journal.runs.readAllEvents(run)) {
    if (body.type === 'step-intent') open.add(body.step);
    if (body.type === 'step-result' || body.type === 'step-error') open.delete(body.step);
  }
  return [...open];
}

async function undoSome(run: string, choose: (below: number) => number): Promise<void> {
  const events = await fixture.journal.runs.readAllEvents(run);
  const steps = events.flatMap(({ body }) => (body.type === 'step-intent' ? [body.step] : []));
  for (const step of steps.reverse()) {
    const leftover = choose(4) === 0 ? 'busy' : null;
    await fixture.append(run, [
      { type: 'undo-intent', step },
      { type: 'undo-result', step, leftover },
    ]);
  }
}
