import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { findBreaches } from '../../scripts/check-rooms.ts';
import { findUntidy } from '../../scripts/tidy.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));

test('every package imports only what its room may', () => {
  expect(findBreaches(root)).toEqual([]);
});

test('the house rules hold', () => {
  expect(findUntidy(root)).toEqual([]);
});
