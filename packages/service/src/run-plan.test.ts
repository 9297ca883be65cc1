import { type JournalBody, type JournalEvent, PlanDocument, type RunView } from '@hypha/protocol';
import { expect, test } from 'vitest';
import { readPlan } from './run-plan.ts';

const HASH = 'a'.repeat(64);
const RUN = `run_${'a'.repeat(26)}`;
const NODE = `node_${'a'.repeat(32)}`;

const view = (change: Partial<RunView> = {}): RunView => ({
  ...{ run: RUN, revision: 'rev', node: NODE, envelopeDigest: HASH, realm: 'default' },
  ...{ deployment: 'web', generation: 3, mode: 'apply', state: 'running', steps: 0, message: '' },
  ...{ acceptedAt: 1, startedAt: 1, endedAt: null, problem: null, simulated: false },
  ...change,
});

function intent(step: number): JournalBody {
  return {
    ...{ type: 'step-intent', step, verb: 'container.ensure', class: 'ensure', args: {} },
    ...{ rid: null, kind: 'container', name: `web-${step}`, action: 'update', before: null },
    ...{ desired: null, differs: ['image'] },
  } as JournalBody;
}

/** Answers pages of two, whatever is asked. */
function sourceOf(bodies: readonly JournalBody[], output?: string) {
  const events = bodies.map((body, index) => ({ run: RUN, seq: index + 1, body }) as JournalEvent);
  return {
    journal: async (_run: string, { cursor = '0' }: { cursor?: string | undefined }) => {
      const items = events.slice(Number(cursor), Number(cursor) + 2);
      const next = Number(cursor) + items.length;
      return { items, nextCursor: next < events.length ? String(next) : null };
    },
    findOutput: async () => (output === undefined ? undefined : { output }),
  };
}

test('the plan of a run that is none is made of its intents, all pages of them', async () => {
  const source = sourceOf([intent(1), intent(2), intent(3)]);
  const plan = await readPlan(source, view({ state: 'succeeded' }));
  expect(PlanDocument.parse(plan)).toEqual(plan);
  expect(plan).toMatchObject({ state: 'complete', deployment: 'web', generation: 3 });
  expect(plan.steps.map(({ name, differs }) => [name, ...differs])).toEqual([
    ['web-1', 'image'],
    ['web-2', 'image'],
    ['web-3', 'image'],
  ]);
  expect(plan.hash).toBeUndefined();
});

test('a run that is not committed may plan more', async () => {
  const plan = await readPlan(sourceOf([intent(1)]), view());
  expect(plan).toMatchObject({ state: 'partial', reason: 'the run is running' });
});

test('nothing is planned before the first intent, or before a plan run has committed', async () => {
  const refused = { code: 'E_NOT_FOUND' };
  await expect(readPlan(sourceOf([]), view())).rejects.toMatchObject(refused);
  const planning = view({ mode: 'plan' });
  await expect(readPlan(sourceOf([intent(1)]), planning)).rejects.toMatchObject(refused);
});

test('the plan of a plan run is its output', async () => {
  const document: PlanDocument = {
    ...{ v: 1, run: RUN, node: NODE, realm: 'default', deployment: 'web', generation: 3 },
    ...{ state: 'complete', steps: [], removals: [], hash: HASH },
  };
  const source = sourceOf([intent(1)], JSON.stringify(document));
  const shown = await readPlan(source, view({ mode: 'plan', state: 'succeeded' }));
  expect(shown).toEqual(document);
});

test.for([
  ['not JSON', '{'],
  ['no plan', '{"v":1}'],
  ['no plan', 'null'],
  [
    'a plan of another run',
    JSON.stringify({
      ...{ v: 1, run: `run_${'b'.repeat(26)}`, node: NODE, realm: 'default', deployment: 'web' },
      ...{ generation: 3, state: 'complete', steps: [], removals: [], hash: HASH },
    }),
  ],
] as const)('a node that commits %s is told of, and fails nobody', async ([, output]) => {
  const planned = view({ mode: 'plan', state: 'succeeded' });
  await expect(readPlan(sourceOf([], output), planned)).rejects.toMatchObject({
    code: 'E_CONFLICT',
    where: { path: RUN },
  });
});
