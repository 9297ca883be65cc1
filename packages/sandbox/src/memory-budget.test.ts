import { expect, test } from 'vitest';
import { MemoryBudget } from './memory-budget.ts';

const never = new AbortController().signal;

/** Names of those that were granted, in order. */
function claims(budget: MemoryBudget) {
  const granted: string[] = [];
  const take = (name: string, bytes: number, signal = never) =>
    budget.take(bytes, signal).then(() => void granted.push(name));
  return { granted, take };
}

test('what fits is granted at once, what does not waits its turn, however small', async () => {
  const budget = new MemoryBudget(100);
  const { granted, take } = claims(budget);
  await take('a', 60);
  const rest = [take('large', 70), take('small', 10)];
  await take('never', 1, AbortSignal.abort()).catch(() => undefined);
  expect(granted).toEqual(['a']);
  budget.give(60);
  await Promise.all(rest);
  expect(granted).toEqual(['a', 'large', 'small']);
});

test('one that wants more than there is gets it when nobody has any', async () => {
  const budget = new MemoryBudget(100);
  const { granted, take } = claims(budget);
  await take('a', 10);
  const whole = take('whole', 500);
  budget.give(10);
  await whole;
  expect(granted).toEqual(['a', 'whole']);
});

test('one that gives up makes way for those behind it and takes nothing', async () => {
  const budget = new MemoryBudget(100);
  const { granted, take } = claims(budget);
  await take('a', 60);
  const reason = new Error('enough');
  const cancel = new AbortController();
  const large = take('large', 70, cancel.signal);
  const small = take('small', 40);
  cancel.abort(reason);
  await expect(large).rejects.toBe(reason);
  await small;
  expect(granted).toEqual(['a', 'small']);
});
