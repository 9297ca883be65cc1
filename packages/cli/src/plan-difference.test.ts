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

test('two sides that read alike say in what they are not', () => {
  const [a, b] = ['a', 'b'].map((digit) => digit.repeat(64));
  const step = { ...STEP, action: 'create', differs: [], specHash: a };
  const difference = [
    { step: 2, was: step, now: { ...step, specHash: b } },
    { step: 2, was: { ...step, specHashBefore: a }, now: { ...step, specHashBefore: b } },
    { step: 2, was: { ...step, argsHash: a }, now: { ...step, argsHash: b } },
    { step: 2, was: { ...step, name: 'api' }, now: step },
  ];
  const error = new HyphaError('E_PLAN_CHANGED', 'moved', { details: { difference } });
  expect(describeError(error).split('\n').slice(2, 6)).toEqual([
    '  step 2  container web  create                 create, with another spec',
    '  step 2  container web  create                 create, of what had another spec',
    '  step 2  container web  create                 create, with other arguments',
    '  step 2  container web  create: container api  create: container web',
  ]);
});

test('what is no difference of plans is not shown as one', () => {
  const error = new HyphaError('E_PLAN_CHANGED', 'moved', { details: { difference: 'x' } });
  expect(describeError(error).split('\n')).toHaveLength(2);
});
