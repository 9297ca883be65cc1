import { expect, test } from 'vitest';
import { COORDINATOR_LIMITS as LIMITS } from './limits.ts';
import { nodeState } from './presence.ts';

const here = { revoked: false, cordoned: false, connected: true, awayMs: 0, silentMs: 0 };
const gone = { ...here, connected: false, awayMs: LIMITS.presenceGraceMs };

test('an open inbox outweighs a ledger that has heard nothing', () => {
  expect(nodeState('unreachable', here)).toBe('ready');
});

test('an inbox that only looks open does not outweigh a long silence', () => {
  const silentMs = LIMITS.silenceMsMax;
  expect(nodeState('unreachable', { ...here, silentMs })).toBe('unreachable');
  expect(nodeState('unreachable', { ...here, silentMs: silentMs - 1 })).toBe('ready');
});

test('a node without inbox is unreachable, but only after the grace', () => {
  expect(nodeState('ready', gone)).toBe('unreachable');
  expect(nodeState('ready', { ...gone, awayMs: LIMITS.presenceGraceMs - 1 })).toBe('ready');
  expect(nodeState('unreachable', { ...gone, awayMs: 0 })).toBe('unreachable');
});

test('a cordon shows whether the node is there or not', () => {
  expect(nodeState('ready', { ...here, cordoned: true })).toBe('cordoned');
  expect(nodeState('ready', { ...gone, cordoned: true })).toBe('cordoned');
});

test('revoked and pending stand above everything seen here', () => {
  expect(nodeState('ready', { ...here, cordoned: true, revoked: true })).toBe('revoked');
  expect(nodeState('revoked', here)).toBe('revoked');
  expect(nodeState('pending', { ...here, cordoned: true })).toBe('pending');
});
