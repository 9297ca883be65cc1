import { HyphaError } from '@hypha/protocol';
import { expect, test } from 'vitest';
import { describeError } from './output.ts';

const STEP = { step: 2, verb: 'container.ensure', kind: 'container', name: 'web', specHash: null };

test('a changed plan is shown as a table of what was and what is', () => {
  const difference = [
    {
      step: 2,
      was: { ...STEP, action: 'no-op', differs: [] },
      now: { ...STEP, action: 'replace', differs: ['image', 'memory'] },
    },
    { was: { kind: 'volume', name: 'old', action: 'retain' }, now: null },
  ];
  const error = new HyphaError('E_PLAN_CHANGED', 'moved', {
    details: { expected: 'a', found: 'b', difference },
  });
  expect(describeError(error).split('\n').slice(1, 4)).toEqual([
    '                         WAS                                         NOW',
    '  step 2  container web  no-op                                       replace (image, memory)',
    '          volume old     retain: no longer declared, its data stays  not planned',
  ]);
});

test('what is no difference of plans is not shown as one', () => {
  const error = new HyphaError('E_PLAN_CHANGED', 'moved', { details: { difference: 'x' } });
  expect(describeError(error).split('\n')).toHaveLength(2);
});
