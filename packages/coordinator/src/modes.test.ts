import type { JournalBody, PlanDocument } from '@hypha/protocol';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type FakeNode, journalOf, STARTED, SUCCEEDED } from './testing/fake-node.ts';
import { TestFleet } from './testing/test-fleet.ts';

const RESOURCES = { milliCpus: 3000, memoryBytes: 1, storageBytes: 1 };
let fleet: TestFleet;
let node: FakeNode;
beforeAll(async () => {
  fleet = await TestFleet.start();
  node = await fleet.addNode('first');
});
afterAll(() => fleet.stop());

type Mode = 'apply' | 'plan' | 'task';

function submit(deployment: string, mode: Mode, generation = 1, on = node) {
  const limits = { resources: RESOURCES };
  return fleet.submit({ deployment, mode, generation, nodes: [on.id], limits });
}

const INTENT: JournalBody = {
  type: 'step-intent',
  step: 1,
  verb: 'volume.ensure',
  class: 'ensure',
  args: { name: 'data' },
  rid: 'a'.repeat(26),
  kind: 'volume',
  name: 'data',
  action: 'update',
  before: null,
  desired: null,
  differs: ['size'],
};

test('plans and tasks are runs, and no revisions of their deployment', async () => {
  const { script: applied } = await submit('web', 'apply', 2);
  const { run: plan } = await submit('web', 'plan', 3);
  const { run: task } = await submit('web', 'task', 3);
  const { coordinator } = fleet;
  const runs = (await coordinator.listRuns({ deployment: 'web' })).items;
  expect(runs.map(({ mode }) => mode).sort()).toEqual(['apply', 'plan', 'task']);
  expect(await coordinator.run(plan)).toMatchObject({ mode: 'plan', state: 'accepted' });
  expect(await coordinator.run(task)).toMatchObject({ mode: 'task', state: 'accepted' });
  expect(await coordinator.deployment('default', 'web')).toMatchObject({
    generation: 2,
    revision: applied.payload.id,
  });
  const { items } = await coordinator.listRevisions('default', 'web');
  expect(items.map(({ revision }) => revision)).toEqual([applied.payload.id]);
});

test('they take no generation: the next apply may have theirs', async () => {
  await submit('free', 'plan', 5);
  await submit('free', 'plan', 5);
  await submit('free', 'task', 5);
  await expect(fleet.coordinator.deployment('default', 'free')).rejects.toMatchObject({
    code: 'E_NOT_FOUND',
  });
  const below = await fleet.submit({ deployment: 'free', generation: 4, nodes: [node.id] });
  expect(below.runs).toHaveLength(1);
});

test('a plan on a full node is accepted, and reserves nothing from an apply', async () => {
  const roomy = await fleet.addNode('roomy', { free: RESOURCES });
  await submit('one', 'plan', 1, roomy);
  await submit('two', 'apply', 1, roomy);
  await expect(submit('three', 'apply', 1, roomy)).rejects.toMatchObject({
    code: 'E_NO_PLACEMENT',
  });
  await submit('three', 'plan', 1, roomy);
});

test('the plan of a plan run is its output, as the node committed it', async () => {
  const { script, run } = await submit('planned', 'plan');
  await expect(fleet.coordinator.plan(run)).rejects.toMatchObject({ code: 'E_NOT_FOUND' });
  const plan: PlanDocument = {
    v: 1,
    run,
    node: node.id,
    realm: 'default',
    deployment: 'planned',
    generation: 1,
    state: 'complete',
    steps: [],
    removals: [],
    hash: 'a'.repeat(64),
  };
  const committed: JournalBody = {
    type: 'committed',
    output: JSON.stringify(plan),
    outputSha256: 'a'.repeat(64),
    desired: [],
  };
  const events = journalOf(node, run, script, STARTED, committed, SUCCEEDED);
  await node.send({ type: 'events', run, events });
  expect(await fleet.coordinator.plan(run)).toEqual(plan);
});

test.for([
  ['no JSON at all', '{', true],
  ['no plan', '{"v":1}', false],
] as const)(
  'a node that commits %s as its plan fails no reader',
  async ([what, output, isTorn]) => {
    const { script, run } = await submit(
      `hostile-${what.replaceAll(' ', '-').toLowerCase()}`,
      'plan',
    );
    const committed: JournalBody = {
      ...{ type: 'committed', output, outputSha256: 'a'.repeat(64), desired: [] },
    };
    const events = journalOf(node, run, script, STARTED, committed, SUCCEEDED);
    await node.send({ type: 'events', run, events });
    const refusal = {
      code: 'E_CONFLICT',
      hint: `look at what its node committed: hypha run journal ${run}`,
    };
    await expect(fleet.coordinator.plan(run)).rejects.toMatchObject(refusal);
    if (isTorn) await expect(fleet.coordinator.output(run)).rejects.toMatchObject(refusal);
  },
);

test('the plan of any other run is what its journal intends so far', async () => {
  const { script, run } = await submit('applied', 'apply');
  await expect(fleet.coordinator.plan(run)).rejects.toMatchObject({ code: 'E_NOT_FOUND' });
  const events = journalOf(node, run, script, STARTED, INTENT);
  await node.send({ type: 'events', run, events });
  const plan = await fleet.coordinator.plan(run);
  expect(plan).toMatchObject({
    state: 'partial',
    steps: [{ step: 1, verb: 'volume.ensure', action: 'update', differs: ['size'] }],
  });
  expect(plan.hash).toBeUndefined();
});

test('what a plan has to be is passed on as it was signed', async () => {
  const expected = { [node.id]: 'b'.repeat(64) };
  const draft = { deployment: 'expecting', nodes: [node.id], expect: expected };
  const { script, run } = await fleet.submit(draft);
  await node.open();
  expect(await node.waitForRun(run)).toEqual(script.envelope);
});
