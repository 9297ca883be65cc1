import { expect, test } from 'vitest';
import { checkModeFits } from './script-mode.ts';

const NODE = `node_${'a'.repeat(32)}`;
const plain = { id: 'rev_1', secrets: {} } as const;
const expected = { [NODE]: 'a'.repeat(64) };

test.for(['plan', 'task', 'destroy'] as const)('a %s is held to no plan', (mode) => {
  expect(() => checkModeFits({ ...plain, mode })).not.toThrow();
  expect(() => checkModeFits({ ...plain, mode, expect: expected })).toThrow(
    expect.objectContaining({ code: 'E_UNSUPPORTED', where: { path: 'expect' } }),
  );
});

test('an apply may be', () => {
  expect(() => checkModeFits({ ...plain, mode: 'apply', expect: expected })).not.toThrow();
});

test('a destroy has nobody to give a secret to', () => {
  const secrets = { [NODE]: 'AA==' };
  expect(() => checkModeFits({ ...plain, mode: 'task', secrets })).not.toThrow();
  expect(() => checkModeFits({ ...plain, mode: 'destroy', secrets })).toThrow(
    expect.objectContaining({ code: 'E_UNSUPPORTED', where: { path: 'secrets' } }),
  );
});
