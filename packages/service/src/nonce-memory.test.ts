import { expect, test } from 'vitest';
import { NonceMemory } from './nonce-memory.ts';

test('knows a nonce of one key until its signature has expired', () => {
  const memory = new NonceMemory();
  expect(memory.use('key-1', 'a', 60, 0)).toBe('new');
  expect(memory.use('key-1', 'a', 60, 60)).toBe('used');
  expect(memory.use('key-2', 'a', 60, 0)).toBe('new');
});

test('refuses more than it can remember, and has room again once the oldest expired', () => {
  const memory = new NonceMemory(2);
  expect(memory.use('key', 'a', 10, 0)).toBe('new');
  expect(memory.use('key', 'b', 20, 0)).toBe('new');
  expect(memory.use('key', 'c', 20, 10)).toBe('full');
  expect(memory.use('key', 'c', 20, 11)).toBe('new');
  expect(memory.use('key', 'b', 20, 11)).toBe('used');
});
