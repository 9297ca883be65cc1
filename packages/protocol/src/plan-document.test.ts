import { describe, expect, test } from 'vitest';
import {
  PlanDocument,
  type PlanRemoval,
  type PlanStep,
  type PlanSubject,
  planHash,
  planStepOf,
} from './index.ts';
import { nodeVerifier } from './node/index.ts';

const SUBJECT: PlanSubject = {
  node: `node_${'b'.repeat(32)}`,
  realm: 'default',
  deployment: 'web',
  script: '1'.repeat(64),
  input: { replicas: 2 },
  deleteData: ['old', 'older'],
};
const STEP: PlanStep = {
  step: 1,
  verb: 'volume.ensure',
  kind: 'volume',
  name: 'data',
  action: 'update',
  differs: ['size'],
  specHash: '2'.repeat(64),
  specHashBefore: '3'.repeat(64),
};
const REMOVAL: PlanRemoval = { kind: 'container', name: 'web', action: 'remove' };

function hashWith(
  subject: Partial<PlanSubject> = {},
  predicted: Partial<Parameters<typeof planHash>[2]> = {},
): string {
  const { state = 'complete', steps = [STEP], removals = [REMOVAL] } = predicted;
  return planHash(nodeVerifier, { ...SUBJECT, ...subject }, { state, steps, removals });
}

describe('the hash of a plan', () => {
  test('never changes for the same plan', () => {
    expect(hashWith()).toBe('5a0c0282e0350bfb576eebd2a47dc2e49376d813d0eab557d1ee6aeeaf4db1b2');
    expect(hashWith({ input: { replicas: 2 }, deleteData: ['older', 'old'] })).toBe(hashWith());
  });

  test.each<[string, Partial<PlanSubject>]>([
    ['node', { node: `node_${'c'.repeat(32)}` }],
    ['realm', { realm: 'other' }],
    ['deployment', { deployment: 'other' }],
    ['script', { script: '4'.repeat(64) }],
    ['input', { input: { replicas: 3 } }],
    ['data that may be deleted', { deleteData: ['old'] }],
  ])('covers the %s', (_what, changed) => {
    expect(hashWith(changed)).not.toBe(hashWith());
  });

  test.each<[string, Partial<PlanStep>]>([
    ['number', { step: 2 }],
    ['verb', { verb: 'volume.other' }],
    ['kind', { kind: 'container' }],
    ['name', { name: 'other' }],
    ['action', { action: 'replace' }],
    ['differing fields', { differs: ['size', 'snapshotBefore'] }],
    ['resource as it would be', { specHash: '5'.repeat(64) }],
    ['resource as it is', { specHashBefore: '5'.repeat(64) }],
    ['arguments', { argsHash: '5'.repeat(64) }],
  ])('covers the %s of a step', (_what, changed) => {
    expect(hashWith({}, { steps: [{ ...STEP, ...changed }] })).not.toBe(hashWith());
  });

  test('covers the order of steps and that there is no other', () => {
    const second = { ...STEP, name: 'second' };
    const both = hashWith({}, { steps: [STEP, second] });
    expect(new Set([both, hashWith({}, { steps: [second, STEP] }), hashWith()]).size).toBe(3);
  });

  test('covers what the deployment would hold no longer, and whether its data goes', () => {
    const ends = (['remove', 'retain', 'delete-data'] as const).map((action) =>
      hashWith({}, { removals: [{ ...REMOVAL, action }] }),
    );
    expect(new Set([...ends, hashWith({}, { removals: [] })]).size).toBe(4);
  });

  test('covers whether the plan is whole', () => {
    expect(hashWith({}, { state: 'partial' })).not.toBe(hashWith());
  });
});

describe('the step of a plan', () => {
  const intent = {
    step: 3,
    verb: 'volume.snapshot',
    class: 'transition',
    kind: 'volume',
    name: 'data',
    args: { name: 'before' },
    action: 'create',
    desired: null,
  } as const;

  test('tells two transitions by their arguments', () => {
    const hashes = ['before', 'after'].map(
      (name) => planStepOf(nodeVerifier, { ...intent, args: { name } }).argsHash,
    );
    expect(new Set(hashes).size).toBe(2);
    expect(hashes).not.toContain(undefined);
  });

  test('shows what only looks as a read, without its arguments', () => {
    const step = planStepOf(nodeVerifier, { ...intent, class: 'read', action: 'run' });
    expect(step.action).toBe('read');
    expect(step.argsHash).toBeUndefined();
  });

  test('has the hashes of a declared resource, as it would be and as it is', () => {
    const desired = {
      rid: 'a'.repeat(26),
      kind: 'volume',
      name: 'data',
      spec: {},
      specHash: '6'.repeat(64),
    } as const;
    const declares = { class: 'ensure', desired } as const;
    const ensured = { ...intent, ...declares, differs: ['size'] };
    expect(planStepOf(nodeVerifier, ensured, '7'.repeat(64))).toEqual({
      ...{ step: 3, verb: 'volume.snapshot', kind: 'volume', name: 'data', action: 'create' },
      differs: ['size'],
      specHash: '6'.repeat(64),
      specHashBefore: '7'.repeat(64),
    });
  });
});

test('a plan document needs no hash in the view of a run that is no plan, and takes no other field', () => {
  const { node, realm, deployment } = SUBJECT;
  const view = {
    ...{ v: 1, run: `run_${'a'.repeat(26)}`, node, realm, deployment, generation: 1 },
    ...{ state: 'partial', steps: [STEP], removals: [REMOVAL] },
  };
  expect(PlanDocument.parse(view)).toEqual(view);
  expect(PlanDocument.safeParse({ ...view, hash: 'x' }).success).toBe(false);
  expect(PlanDocument.safeParse({ ...view, other: 1 }).success).toBe(false);
});
