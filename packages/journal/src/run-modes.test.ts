import { type Json, PlanDocument, type ScriptPayloadInput } from '@hypha/protocol';
import { expect, test } from 'vitest';
import {
  admissionOf,
  committed,
  desiredOf,
  finished,
  intent,
  journalOfEachTest,
  NODE,
  OWNER,
  refusal,
  result,
} from './testing/journal-fixture.ts';

const fixture = journalOfEachTest();

const of = { realm: 'default', deployment: 'web' };
const web = desiredOf('container', 'web');
const api = desiredOf('container', 'api');
const data = desiredOf('volume', 'data');

const startRun = async (change?: Partial<ScriptPayloadInput>) => (await fixture.start(change)).run;

async function failKept(...desired: ReturnType<typeof desiredOf>[]): Promise<string> {
  const run = await startRun({ onFailure: 'keep' });
  await fixture.make(run, desired);
  await fixture.append(run, [finished('failed', 'E_SCRIPT')]);
  return run;
}

const undoIntent = (step: number, target: { run: string; step: number }) =>
  ({ ...intent(step, null), verb: 'run.undo', args: target }) as const;
const undoResult = (step: number, leftover: string | null = null) =>
  ({ ...result(step), result: { leftover } as Json }) as const;

function planOf(run: string, hash = 'a'.repeat(64)): PlanDocument {
  return PlanDocument.parse({
    ...{ v: 1, run, node: NODE, ...of, generation: 1, state: 'complete' },
    ...{ steps: [], removals: [], hash },
  });
}

const committedPlan = (plan: unknown) => ({ ...committed(), output: JSON.stringify(plan) });

const read = async (target: string) => await fixture.journal.runs.readKept(of, target);

async function stepsKept(target: string): Promise<number[]> {
  return (await read(target)).flatMap(({ body }) =>
    body.type === 'step-intent' ? [body.step] : [],
  );
}

test.for(['plan', 'task'] as const)(
  'a %s takes no generation and reserves nothing',
  async (mode) => {
    await fixture.apply({ generation: 50 }, web);
    const used = fixture.journal.reserved();
    const limits = { resources: { milliCpus: 4000, memoryBytes: 1, storageBytes: 1 } };
    // Also below the mark: it is no revision of the deployment.
    const run = await startRun({ mode, generation: 1, limits });
    expect(fixture.journal.reserved()).toEqual(used);
    await fixture.append(run, [mode === 'plan' ? committedPlan(planOf(run)) : committed()]);
    await fixture.succeed(run);
    await fixture.reopen();
    expect(fixture.journal.reserved()).toEqual(used);
    expect(fixture.statuses()).toEqual({ web: 'committed' });
    await expect(fixture.journal.admit(admissionOf({ generation: 51 }))).resolves.toBeDefined();
  },
);

test.for(['plan', 'task'] as const)('a %s waits for the turn of its deployment', async (mode) => {
  await startRun();
  const waiting = admissionOf({ mode });
  await fixture.journal.admit(waiting);
  const claim = fixture.journal.claim(waiting.run, { runner: 'r2', epoch: 1, bootId: 'b' });
  await expect(claim).rejects.toThrow(refusal('E_STALE_EPOCH'));
});

test.for(['plan', 'task'] as const)('a %s declares nothing', async (mode) => {
  await fixture.apply({}, web, data);
  const run = await startRun({ mode });
  const conflict = refusal('E_CONFLICT');
  await expect(fixture.append(run, [intent(1, api)])).rejects.toThrow(conflict);
  const body = mode === 'plan' ? committedPlan(planOf(run)) : committed();
  const declaring = { ...body, desired: [api] };
  await expect(fixture.append(run, [declaring])).rejects.toThrow(conflict);
  await fixture.append(run, [body]);
  expect(fixture.statuses()).toEqual({ web: 'committed', data: 'committed' });
});

test('a plan is found by its hash, the newest of those that found the same', async () => {
  const hash = 'b'.repeat(64);
  const { runs } = fixture.journal;
  expect(await runs.findPlan(hash)).toBeUndefined();
  for (const round of [1, 2]) {
    const run = await startRun({ mode: 'plan', generation: round });
    await fixture.append(run, [committedPlan(planOf(run, hash))]);
    await fixture.succeed(run);
    await fixture.reopen();
    expect(await fixture.journal.runs.findPlan(hash)).toEqual(planOf(run, hash));
  }
});

test('the commit of a plan is a plan of its own run', async () => {
  const run = await startRun({ mode: 'plan' });
  const conflict = refusal('E_CONFLICT');
  const { hash: _, ...unnamed } = planOf(run);
  for (const broken of [7, {}, unnamed, planOf(admissionOf().run)]) {
    await expect(fixture.append(run, [committedPlan(broken)])).rejects.toThrow(conflict);
  }
  await expect(fixture.append(run, [committedPlan(planOf(run))])).resolves.toHaveLength(1);
});

test('a dropped run takes its plan, and what was undone of it, along', async () => {
  const kept = await failKept(web);
  const task = await startRun({ mode: 'task' });
  await fixture.append(task, [undoIntent(1, { run: kept, step: 1 }), undoResult(1), committed()]);
  await fixture.succeed(task);
  const plan = await startRun({ mode: 'plan' });
  await fixture.append(plan, [committedPlan(planOf(plan))]);
  await fixture.succeed(plan);
  const { cursors, sweeper, runs } = fixture.journal;
  await cursors.confirm([kept, task, plan].map((run) => ({ run, told: 100 })));
  expect(await sweeper.dropRuns(fixture.nowMs + 1, 3)).toBe(3);
  expect(await runs.findPlan('a'.repeat(64))).toBeUndefined();
  expect(await fixture.countRows('plan')).toBe(0);
  expect(await fixture.countRows('undone')).toBe(0);
});

test('a kept run is not dropped while something of it is kept', async () => {
  const kept = await failKept(web, api);
  const undo = async (step: number) => {
    const task = await startRun({ mode: 'task' });
    await fixture.append(task, [undoIntent(1, { run: kept, step }), undoResult(1), committed()]);
    await fixture.succeed(task);
  };
  await undo(1);
  const drop = async () => {
    const { cursors, sweeper } = fixture.journal;
    await cursors.confirm([{ run: kept, told: 100 }]);
    return await sweeper.dropRuns(fixture.nowMs + 1, 3);
  };
  expect(await drop()).toBe(0);
  expect(await stepsKept(kept)).toEqual([2]);
  await undo(2);
  expect(await drop()).toBe(1);
});

test('an undone step of a kept run leaves the record with the outcome that says so', async () => {
  await fixture.apply({}, data);
  const kept = await failKept(web, api);
  expect(fixture.journal.reserved().milliCpus).toBe(1000);
  const task = await startRun({ mode: 'task' });
  await fixture.append(task, [undoIntent(1, { run: kept, step: 2 })]);
  expect(fixture.statuses()).toEqual({ data: 'committed', web: 'provisional', api: 'provisional' });
  await fixture.append(task, [undoResult(1)]);
  await fixture.reopen();
  expect(fixture.statuses()).toEqual({ data: 'committed', web: 'provisional' });
  expect(await stepsKept(kept)).toEqual([1]);
  // Something of it stands yet.
  expect(fixture.journal.reserved().milliCpus).toBe(1000);
  await fixture.journal.reattach(task, OWNER);
  await fixture.append(task, [undoIntent(2, { run: kept, step: 1 }), undoResult(2), committed()]);
  await fixture.succeed(task);
  await fixture.reopen();
  expect(fixture.statuses()).toEqual({ data: 'committed' });
  expect(await stepsKept(kept)).toEqual([]);
  expect(fixture.journal.reserved()).toEqual({
    milliCpus: 0,
    memoryBytes: 0,
    storageBytes: 64 * 1024 * 1024,
  });
});

test('what a task has undone is undone, also when the task fails or is cancelled', async () => {
  for (const state of ['failed', 'cancelled'] as const) {
    const kept = await failKept(web, api);
    const task = await startRun({ mode: 'task' });
    const first = undoIntent(1, { run: kept, step: 2 });
    const second = undoIntent(2, { run: kept, step: 1 });
    await fixture.append(task, [first, undoResult(1), second, undoResult(2, 'device is busy')]);
    await fixture.append(task, [finished(state, 'E_SCRIPT')]);
    await fixture.reopen();
    expect(fixture.statuses()).toEqual({ web: 'provisional' });
    expect(await stepsKept(kept)).toEqual([1]);
    expect(fixture.journal.reserved().milliCpus).toBe(1000);
    const again = await startRun({ mode: 'task' });
    await fixture.append(again, [undoIntent(1, { run: kept, step: 1 }), undoResult(1)]);
    // The same step twice is one that is undone.
    await fixture.append(again, [undoIntent(2, { run: kept, step: 1 }), undoResult(2)]);
    await fixture.append(again, [committed()]);
    await fixture.succeed(again);
    expect(fixture.statuses()).toEqual({});
    expect(fixture.journal.reserved().milliCpus).toBe(0);
  }
});

test('undo of a kept change brings back what was in force before it', async () => {
  await fixture.apply({}, web);
  const kept = await failKept(desiredOf('container', 'web', 2));
  const task = await startRun({ mode: 'task' });
  await fixture.append(task, [undoIntent(1, { run: kept, step: 1 }), undoResult(1), committed()]);
  const { records, provisional } = fixture.journal.records.readWorld();
  expect(provisional).toEqual([]);
  expect(records).toMatchObject([{ name: 'web', specHash: web.specHash, status: 'committed' }]);
});

test('two kept failures hold the larger ceiling until nothing of either is left', async () => {
  const first = await failKept(web);
  const limits = { resources: { milliCpus: 10, memoryBytes: 1, storageBytes: 1 } };
  const second = await startRun({ onFailure: 'keep', limits });
  await fixture.append(second, [intent(1, api), result(1), finished('failed', 'E_SCRIPT')]);
  expect(fixture.journal.reserved().milliCpus).toBe(1000);
  const task = await startRun({ mode: 'task' });
  await fixture.append(task, [undoIntent(1, { run: first, step: 1 }), undoResult(1)]);
  expect(fixture.journal.reserved().milliCpus).toBe(1000);
  await fixture.append(task, [undoIntent(2, { run: second, step: 1 }), undoResult(2)]);
  expect(fixture.journal.reserved().milliCpus).toBe(0);
});

test('a task touches nothing of another deployment', async () => {
  const other = await startRun({ deployment: 'other', onFailure: 'keep' });
  await fixture.append(other, [intent(1, web), result(1), finished('failed', 'E_SCRIPT')]);
  const task = await startRun({ mode: 'task' });
  await fixture.append(task, [undoIntent(1, { run: other, step: 1 }), undoResult(1)]);
  expect(await fixture.countRows('undone')).toBe(0);
  expect(fixture.statuses()).toEqual({ web: 'provisional' });
  const kept = await fixture.journal.runs.readKept({ ...of, deployment: 'other' }, other);
  expect(kept.map(({ body }) => body.type)).toContain('step-intent');
});

test('only a failed run of the same deployment that was signed to be kept can be read', async () => {
  const kept = await failKept(web);
  expect(await stepsKept(kept)).toEqual([1]);
  const { runs } = fixture.journal;
  const notFound = refusal('E_NOT_FOUND');
  await expect(runs.readKept({ ...of, deployment: 'other' }, kept)).rejects.toThrow(notFound);
  await expect(runs.readKept({ ...of, realm: 'lab' }, kept)).rejects.toThrow(notFound);
  await expect(read(admissionOf().run)).rejects.toThrow(notFound);
  const undone = await startRun();
  await fixture.append(undone, [finished('failed', 'E_SCRIPT')]);
  await expect(read(undone)).rejects.toThrow(notFound);
  const running = await startRun({ onFailure: 'keep' });
  await expect(read(running)).rejects.toThrow(notFound);
  await fixture.append(running, [committed()]);
  await expect(read(running)).rejects.toThrow(notFound);
});

test('a kept run cannot be undone once its deployment has committed', async () => {
  const kept = await failKept(web);
  for (const mode of ['plan', 'task'] as const) {
    const run = await startRun({ mode });
    await fixture.append(run, [mode === 'plan' ? committedPlan(planOf(run)) : committed()]);
    await fixture.succeed(run);
  }
  expect(await stepsKept(kept)).toEqual([1]);
  await fixture.apply({}, api);
  await expect(read(kept)).rejects.toThrow(refusal('E_TOO_LATE'));
});
