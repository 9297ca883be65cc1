import { expect, test } from 'vitest';
import { parseMoment } from './moment.ts';

const NOW = Date.parse('2026-11-21T12:00:00Z');

test.for([
  ['30s', '2026-11-21T11:59:30.000Z'],
  ['15m', '2026-11-21T11:45:00.000Z'],
  ['2h', '2026-11-21T10:00:00.000Z'],
  ['3d', '2026-11-18T12:00:00.000Z'],
  ['1w', '2026-11-14T12:00:00.000Z'],
  ['2026-11-20', '2026-11-20T00:00:00.000Z'],
  ['2026-11-20T10:30Z', '2026-11-20T10:30:00.000Z'],
  ['2026-11-20T10:30:05.5+02:00', '2026-11-20T08:30:05.500Z'],
] as const)('%s is %s', ([text, moment]) => {
  expect(new Date(parseMoment(text, '--since', NOW)).toISOString()).toBe(moment);
});

test.for([
  '',
  'yesterday',
  '2',
  '2 h',
  '-2h',
  '2026-13-01',
  '11/20/2026',
  '2026-11-20T10:30',
  '9999999d',
])('%j is refused', (text) => {
  expect(() => parseMoment(text, '--until', NOW)).toThrowError(/^--until: cannot read the time/);
});
