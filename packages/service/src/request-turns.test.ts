import { setImmediate as turn } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { RequestTurns } from './request-turns.ts';

function waiters(turns: RequestTurns) {
  const told: string[] = [];
  const add = (...names: readonly string[]) => {
    for (const name of names) turns.wait((fault) => told.push(`${name} ${fault?.code ?? 'goes'}`));
  };
  return { told, add };
}

test('the newest goes first, one at a time', async () => {
  const { told, add } = waiters(new RequestTurns(10));
  add('a', 'b', 'c');
  expect(told).toEqual([]);
  await turn();
  expect(told).toEqual(['c goes']);
  add('d');
  await turn();
  await turn();
  await turn();
  expect(told).toEqual(['c goes', 'd goes', 'b goes', 'a goes']);
  add('e');
  await turn();
  expect(told.at(-1)).toBe('e goes');
});

test('of too many the oldest is told to come again', async () => {
  const { told, add } = waiters(new RequestTurns(2));
  add('a', 'b', 'c', 'd');
  expect(told).toEqual(['a E_UNAVAILABLE', 'b E_UNAVAILABLE']);
  await turn();
  await turn();
  expect(told.slice(2)).toEqual(['d goes', 'c goes']);
});
