import { expect, test } from 'vitest';
import { until } from './testing/node-fixture.ts';
import { Turns } from './turns.ts';

test('turns of one key come one after another, others at once up to the bound', async () => {
  const turns = new Turns(2);
  const log: string[] = [];
  const gates = new Map<string, () => void>();
  const work = (name: string) => async () => {
    log.push(`${name} begins`);
    await new Promise<void>((resolve) => gates.set(name, resolve));
    log.push(`${name} ends`);
  };
  const all = [
    turns.take('a', work('a1')),
    turns.take('a', work('a2')),
    turns.take('b', work('b1')),
    turns.take('c', work('c1')),
  ];
  await until('two began', () => gates.size === 2);
  expect(log).toEqual(['a1 begins', 'b1 begins']);
  for (const name of ['a1', 'c1', 'b1', 'a2']) {
    await until(`${name} began`, () => gates.has(name));
    gates.get(name)?.();
  }
  await Promise.all(all);
  expect(log.indexOf('a2 begins')).toBeGreaterThan(log.indexOf('a1 ends'));
  expect(turns.isTaken('a')).toBe(false);
});
