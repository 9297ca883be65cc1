import { parseStrictJson } from '@hypha/protocol';
import { expect, test } from 'vitest';
import { readPlainJson } from './plain-json.ts';

test.for([
  ['null', '[true,"",{"a":[{}]},1.5,-1e-7,9007199254740991]'],
  ['a pair', '"\\ud83d\\ude00"'],
] as const)('%s is plain', ([, text]) => {
  expect(readPlainJson(text)).toEqual({ value: JSON.parse(text) });
});

test.for([
  ['a large integer', '[9007199254740993]'],
  ['an integer in scientific form', '{"a":1e21}'],
  ['half a pair', '["\\ud83d"]'],
  ['half a pair in a key', '{"a":{"\\ude00":1}}'],
  ['the prototype as a key', '[{"__proto__":{}}]'],
  ['deep nesting', `${'['.repeat(65)}${']'.repeat(65)}`],
] as const)('%s is refused, as strict JSON readers do', ([, text]) => {
  expect(readPlainJson(text)).toHaveProperty('refused');
  expect(() => parseStrictJson(text)).toThrow();
});
