import { expect, test } from 'vitest';
import { jsonDifference } from './json-difference.ts';

test('a difference is told at the innermost field that has it, also where one side has none', () => {
  const was = { image: 'a', mounts: { '/data': { size: 1 } }, ports: [1, 2], same: [{ x: null }] };
  const now = {
    image: 'b',
    mounts: { '/data': { size: 1, ro: true } },
    ports: [1],
    same: [{ x: null }],
  };
  expect(jsonDifference(was, now)).toEqual([
    { path: 'image', was: 'a', now: 'b' },
    { path: 'mounts./data.ro', was: undefined, now: true },
    { path: 'ports', was: [1, 2], now: [1] },
  ]);
  expect(jsonDifference(null, { a: 1 })).toEqual([{ path: '', was: null, now: { a: 1 } }]);
  expect(jsonDifference({ b: 1, a: 2 }, { a: 2, b: 1 })).toEqual([]);
});
