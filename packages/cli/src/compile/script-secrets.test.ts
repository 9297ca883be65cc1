import { expect, test } from 'vitest';
import { readSecretNames } from './script-secrets.ts';

test.for([
  [
    'as the bundler writes it',
    "var deployment = { name: 'web', secrets: ['a', 'b'] };\nexport { deployment };",
    ['a', 'b'],
  ],
  ['as a person writes it', "export const deployment = { 'secrets': ['a'] };", ['a']],
  ['without secrets', "export const deployment = { name: 'web' };", []],
  ['without deployment', 'export default () => null;', []],
  ['with names that are computed', 'export const deployment = { secrets: [f(), 1, ...g] };', []],
  ['under another name', "const other = { secrets: ['a'] };", []],
  ['that is no script', 'const const', []],
] as const)('reads the names of secrets of a script %s', ([, source, names]) => {
  expect(readSecretNames(source)).toEqual(names);
});
