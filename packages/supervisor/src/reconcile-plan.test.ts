import type { ResourceEntry } from '@hypha/journal';
import { expect, test } from 'vitest';
import { planReconcile } from './reconcile-plan.ts';

const free = { isLeftAlone: () => false, isBusy: () => false };

function entry(kind: string, name: string, change: Partial<ResourceEntry> = {}): ResourceEntry {
  return {
    ...{ rid: `${kind}-${name}`, kind, name, spec: {}, specHash: '', createdBy: '', lastOp: '' },
    ...{ status: 'committed', deleteData: false, unsettled: false, version: 1 },
    ...{ realm: 'default', deployment: 'web' },
    ...change,
  };
}

const shown = (records: readonly ResourceEntry[], claims = free) =>
  planReconcile({ records, provisional: [] }, claims).flatMap(({ tasks }) =>
    tasks.map(({ action, entry: { name } }) => `${action} ${name}`),
  );

test('is empty for an empty record', () => {
  expect(shown([])).toEqual([]);
});

test('removes containers before volumes, makes volumes before containers, settles last', () => {
  const records = [
    entry('volume', 'v1', { status: 'removing' }),
    entry('container', 'c1', { status: 'removing' }),
    entry('container', 'c2', { unsettled: true }),
    entry('volume', 'v2'),
  ];
  expect(shown(records)).toEqual([
    'remove c1',
    'remove v1',
    'converge v2',
    'converge c2',
    'settle c2',
  ]);
});

test('does nothing about what is only retained', () => {
  expect(shown([entry('volume', 'kept', { status: 'retained' })])).toEqual([]);
});

test('keeps up but neither removes nor settles in a deployment with a run under way', () => {
  const records = [
    entry('container', 'a', { status: 'removing' }),
    entry('container', 'b', { unsettled: true }),
  ];
  expect(shown(records, { ...free, isBusy: () => true })).toEqual(['converge b']);
});

test('leaves alone what a run has an intent on, or what one declared and kept', () => {
  const records = [entry('container', 'a'), entry('container', 'b'), entry('container', 'c')];
  const isLeftAlone = (rid: string) => rid === 'container-a';
  const step = { ...entry('container', 'b'), run: 'r', position: 1, step: 1, action: 'update' };
  const plan = planReconcile(
    { records, provisional: [{ ...step, settled: true }] },
    { ...free, isLeftAlone },
  );
  expect(plan.flatMap(({ tasks }) => tasks.map((task) => task.entry.name))).toEqual(['c']);
});
