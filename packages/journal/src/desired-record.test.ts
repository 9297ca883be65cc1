import { afterEach, beforeEach, expect, test } from 'vitest';
import {
  admissionOf,
  committed,
  createJournalFixture,
  desiredOf,
  finished,
  intent,
  type JournalFixture,
  result,
  started,
} from './testing/journal-fixture.ts';

let fixture: JournalFixture;
beforeEach(async () => {
  fixture = await createJournalFixture();
});
afterEach(async () => {
  await fixture[Symbol.asyncDispose]();
});

const supervisor = { by: 'supervisor' } as const;
const web = desiredOf('container', 'web');
const data = desiredOf('volume', 'data');

async function startRun(change: Parameters<typeof admissionOf>[0] = {}): Promise<string> {
  const admission = admissionOf(change);
  await fixture.journal.admit(admission);
  await fixture.journal.claim(admission.run, { runner: 'r1', epoch: 1, bootId: 'boot-1' });
  await fixture.append(admission.run, [started()]);
  return admission.run;
}

async function applyAll(
  change: Parameters<typeof admissionOf>[0],
  ...desired: ReturnType<typeof desiredOf>[]
): Promise<string> {
  const run = await startRun(change);
  for (const [index, resource] of desired.entries()) {
    await fixture.append(run, [intent(index + 1, resource), result(index + 1)]);
  }
  await fixture.append(run, [committed(...desired)]);
  await fixture.journal.append(run, supervisor, [finished('succeeded')]);
  return run;
}

function statuses(): Record<string, string> {
  const { records, provisional } = fixture.journal.records.readWorld();
  return Object.fromEntries([
    ...records.map(({ name, status }) => [name, status]),
    ...provisional.map(({ name }) => [name, 'provisional']),
  ]);
}

test('a declared resource is provisional until its run commits', async () => {
  const run = await startRun();
  await fixture.append(run, [intent(1, web)]);
  expect(statuses()).toEqual({ web: 'provisional' });
  await fixture.append(run, [result(1), committed(web)]);
  expect(statuses()).toEqual({ web: 'committed' });
  const [record] = fixture.journal.records.listRecords();
  expect(record).toMatchObject({ ...web, createdBy: run, lastOp: `${run}/1`, unsettled: true });
});

test('steps and commit in one append mean the same', async () => {
  const run = await startRun();
  await fixture.append(run, [intent(1, web), result(1), committed(web)]);
  const [record] = fixture.journal.records.listRecords();
  expect(record).toMatchObject({ createdBy: run, lastOp: `${run}/1` });
  expect(statuses()).toEqual({ web: 'committed' });
});

test('what is no longer declared is removed, but volumes are retained', async () => {
  await applyAll({}, web, data);
  await applyAll({}, desiredOf('container', 'api'));
  expect(statuses()).toEqual({ api: 'committed', web: 'removing', data: 'retained' });
});

test('only a signed deleteData removes a volume, declared before or retained', async () => {
  await applyAll({}, data, desiredOf('volume', 'old'));
  await applyAll({ deleteData: ['other'] });
  expect(statuses()).toEqual({ data: 'retained', old: 'retained' });
  await applyAll({ deleteData: ['data'], mode: 'destroy' });
  expect(statuses()).toEqual({ data: 'removing', old: 'retained' });
  const records = fixture.journal.records.listRecords();
  expect(records.map(({ name, deleteData }) => [name, deleteData])).toEqual([
    ['data', true],
    ['old', false],
  ]);
});

test('a retained volume that is declared again keeps its maker', async () => {
  const first = await applyAll({}, data);
  await applyAll({});
  const third = await startRun();
  await fixture.append(third, [intent(1, data, 'no-op'), result(1), committed(data)]);
  const [record] = fixture.journal.records.listRecords();
  expect(record).toMatchObject({ status: 'committed', createdBy: first, lastOp: `${first}/1` });
});

test('undo drops what was provisional and the committed record stands', async () => {
  await applyAll({}, web);
  const run = await startRun();
  const bigger = desiredOf('container', 'web', 2);
  await fixture.append(run, [intent(1, bigger, 'update'), result(1), intent(2, data)]);
  expect(statuses()).toEqual({ web: 'provisional', data: 'provisional' });
  for (const step of [2, 1]) {
    await fixture.append(run, [
      { type: 'undo-intent', step },
      { type: 'undo-result', step, leftover: null },
    ]);
  }
  await fixture.append(run, [finished('failed', 'E_SCRIPT')]);
  expect(statuses()).toEqual({ web: 'committed' });
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
  expect(statuses()).toEqual({ web: 'removing', data: 'retained' });
});

test('a kept failure stays provisional and reserved until the next commit', async () => {
  const run = await startRun({ onFailure: 'keep' });
  await fixture.append(run, [intent(1, web), result(1)]);
  await fixture.append(run, [finished('failed', 'E_SCRIPT')]);
  await fixture.reopen();
  expect(statuses()).toEqual({ web: 'provisional' });
  expect(fixture.journal.reserved().milliCpus).toBe(1000);
  await applyAll({}, desiredOf('container', 'api'));
  expect(statuses()).toEqual({ api: 'committed', web: 'removing' });
  expect(fixture.journal.reserved().milliCpus).toBe(500);
});

test('a record that changed while it was being removed stands', async () => {
  await applyAll({}, web);
  await applyAll({});
  const [removing] = fixture.journal.records.listRecords();
  if (removing === undefined) throw new Error('the record is there');
  await applyAll({}, web);
  expect(await fixture.journal.records.dropRecord(removing)).toBe(false);
  expect(statuses()).toEqual({ web: 'committed' });
  await applyAll({});
  const [again] = fixture.journal.records.listRecords();
  if (again === undefined) throw new Error('the record is there');
  expect(await fixture.journal.records.dropRecord(again)).toBe(true);
  expect(statuses()).toEqual({});
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
      await fixture.journal.append(run, supervisor, [finished('succeeded')]);
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
