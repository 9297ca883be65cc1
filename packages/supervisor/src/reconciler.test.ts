import { afterEach, beforeEach, expect, test } from 'vitest';
import { desiredOf, finished, intent, JournalWorld } from './testing/journal-world.ts';
import { until } from './testing/node-fixture.ts';

let world: JournalWorld;
beforeEach(async () => {
  world = await JournalWorld.open();
});
afterEach(async () => {
  await world[Symbol.asyncDispose]();
});

const web = desiredOf('container', 'web');
const data = desiredOf('volume', 'data');
const entryOf = async (run: string) => await world.journal.runs.getRun(run);

test('what is recorded and not there is made, volumes before what stands on them', async () => {
  await world.succeed(await world.commit([web, data]));
  await world.startReconciler();
  await until('both are there', () => world.sals.effects().length === 2);
  expect(world.sals.effects()).toEqual(['repair data', 'repair web']);
});

test('a new process repairs what was lost while there was none', async () => {
  await world.succeed(await world.commit([web]));
  await world.startReconciler();
  await until('it is there', () => world.sals.effects().length === 1);
  await world.restart();
  await world.sals.lose('web');
  await world.startReconciler();
  await until('it is there again', () => world.sals.effects().length === 2);
});

test('a commit settles at once when nothing is to be removed', async () => {
  const run = await world.commit([]);
  expect(await world.reconciler.settle(await entryOf(run))).toEqual([]);
});

test('what is no longer declared is removed, and then the record is forgotten', async () => {
  await world.succeed(await world.commit([web, data]));
  await world.startReconciler();
  await until('both are there', () => world.sals.effects().length === 2);
  const run = await world.commit([], { deleteData: ['data'] });
  expect(await world.reconciler.settle(await entryOf(run))).toEqual([]);
  expect(world.sals.effects().slice(2)).toEqual(['remove web', 'remove data']);
  expect(world.journal.records.listRecords()).toEqual([]);
});

test('a volume is not removed under a container that cannot be', async () => {
  await world.succeed(await world.commit([web, data]));
  await world.startReconciler();
  await until('both are there', () => world.sals.effects().length === 2);
  await world.sals.pin('web');
  const run = await world.commit([], { deleteData: ['data'] });
  const settled = world.reconciler.settle(await entryOf(run));
  await until('removal was tried', () => world.reconciler.reasonOf(web.rid) !== null);
  expect(world.reconciler.reasonOf(data.rid)).toBeNull();
  expect(world.sals.things()).toEqual(['data', 'web']);
  await world.sals.unpin('web');
  expect(await settled).toEqual([]);
  expect(world.sals.things()).toEqual([]);
});

test('nor while the container waits for its next try', async () => {
  await world.succeed(await world.commit([web, data]));
  await world.startReconciler();
  await until('both are there', () => world.sals.effects().length === 2);
  await world.sals.pin('web');
  await world.succeed(await world.commit([], { deleteData: ['data'] }));
  for (let tries = 0; tries < 3; tries++) {
    const before = world.sals.refusals;
    await until('removal was tried again', () => world.sals.refusals > before);
  }
  expect(world.sals.things()).toEqual(['data', 'web']);
});

test('what cannot be removed in time is left over with the reason, and removed later', async () => {
  await world.succeed(await world.commit([web]));
  await world.startReconciler();
  await until('it is there', () => world.sals.things().length === 1);
  await world.sals.pin('web');
  const run = await world.commit([]);
  const [leftover] = await world.reconciler.settle(await entryOf(run));
  expect(leftover).toMatchObject({ name: 'web', reason: 'E_SAL: cannot remove web: it is busy' });
  await world.succeed(run);
  await world.sals.unpin('web');
  await until('it is gone', () => world.sals.things().length === 0);
  await until('it is forgotten', () => world.journal.records.listRecords().length === 0);
});

test('the end of a run does not wait for a repair that takes long', async () => {
  await world.sals.hold('slow');
  await world.succeed(await world.commit([desiredOf('container', 'slow'), web]));
  await world.startReconciler();
  await until('the repair is half way', () => world.sals.heldBy('slow') !== undefined);
  const run = await world.commit([desiredOf('container', 'slow')]);
  expect(await world.reconciler.settle(await entryOf(run))).toEqual([]);
  expect(world.journal.records.listRecords().map(({ name }) => name)).toEqual(['slow']);
});

test('nothing is removed while a run of the deployment is under way', async () => {
  await world.succeed(await world.commit([web]));
  await world.startReconciler();
  await until('it is there', () => world.sals.things().length === 1);
  await world.sals.pin('web');
  await world.succeed(await world.commit([]));
  await until('removal was tried', () => world.reconciler.reasonOf(web.rid) !== null);
  const run = await world.begin([]);
  await world.reconciler.makeWay(await entryOf(run));
  await world.sals.unpin('web');
  const other = desiredOf('container', 'other');
  await world.succeed(await world.commit([other], { deployment: 'other' }));
  await until('another deployment goes on', () => world.sals.things().includes('other'));
  expect(world.sals.things()).toContain('web');
  await world.fixture.append(run, [finished('failed', 'E_SCRIPT')]);
  await until('it is gone', () => !world.sals.things().includes('web'));
});

test('an unfinished run keeps its resources to itself, also after a restart', async () => {
  await world.succeed(await world.commit([web]));
  await world.startReconciler();
  await until('it is there', () => world.sals.effects().length === 1);
  const run = await world.begin([]);
  await world.reconciler.leaveAlone(web.rid, run);
  await world.fixture.append(run, [intent(1, { ...web, specHash: data.specHash }, 'update')]);
  await world.restart();
  await world.sals.lose('web');
  await world.startReconciler();
  const other = desiredOf('container', 'other');
  await world.succeed(await world.commit([other], { deployment: 'other' }));
  await until('another deployment goes on', () => world.sals.things().includes('other'));
  expect(world.sals.things()).toEqual(['other']);
  await world.fixture.append(run, [
    { type: 'undo-intent', step: 1 },
    { type: 'undo-result', step: 1, leftover: null },
    finished('failed', 'E_SCRIPT'),
  ]);
  await until('it is back', () => world.sals.things().includes('web'));
});

test('after a reboot an unfinished run gets back what it had made, and only that', async () => {
  const run = await world.begin([data, web]);
  await world.fixture.append(run, [intent(3, desiredOf('container', 'half'))]);
  await world.restart();
  await world.reconciler.restore(await entryOf(run));
  expect(world.sals.effects()).toEqual(['repair data', 'repair web']);
});

test('after a reboot a run gets back what it tried to change in vain, as it was', async () => {
  await world.succeed(await world.commit([web, data]));
  const run = await world.begin([]);
  const error = { code: 'E_HEALTH', message: 'it fell apart', hint: 'see its log' } as const;
  await world.fixture.append(run, [
    intent(1, { ...web, specHash: 'f'.repeat(64) }, 'replace'),
    { type: 'step-error', step: 1, error, durationMs: 1 },
    intent(2, { ...data, specHash: 'f'.repeat(64) }, 'update'),
  ]);
  await world.restart();
  await world.reconciler.restore(await entryOf(run));
  expect(world.sals.effects()).toEqual(['repair web']);
});

test('what a reboot cost a run that is being undone is not made again', async () => {
  const run = await world.begin([data, web]);
  await world.fixture.append(run, [{ type: 'undo-intent', step: 2 }]);
  await world.restart();
  await world.reconciler.restore(await entryOf(run));
  expect(world.sals.effects()).toEqual([]);
});

test('halting stops what is recorded and forgets nothing', async () => {
  await world.succeed(await world.commit([web]));
  await world.reconciler.halt();
  expect(world.sals.effects()).toEqual(['halt web']);
  expect(world.journal.records.listRecords()).toHaveLength(1);
});
