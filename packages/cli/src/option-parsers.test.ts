import { expect, test } from 'vitest';
import { parseDuration } from './option-parsers.ts';

test.for([
  ['1', 1],
  ['90s', 90],
  ['15m', 900],
  ['2h', 7200],
  ['1d', 86_400],
] as const)('reads %s as %d seconds', ([text, seconds]) => {
  expect(parseDuration(text, '--timeout')).toBe(seconds);
});

test.for(['', '0', '0m', '-1', '1.5h', '1 m', 'm', '1w', '9999999999', '0x10'])(
  'takes %j for no time',
  (text) => {
    expect(() => parseDuration(text, '--timeout')).toThrow(
      expect.objectContaining({ code: 'E_ARGUMENT' }),
    );
  },
);
