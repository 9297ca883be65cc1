import { isHyphaError } from '@hypha/protocol';
import { expect, test } from 'vitest';
import { InputSchema, parseInput } from './script-input.ts';

const SCHEMA = InputSchema.parse({
  image: 'image',
  greeting: { type: 'string', default: 'Hello' },
  replicas: { type: 'int', default: 2, min: 1, max: 8 },
  debug: { type: 'bool', default: false },
});

test('texts become values of their type, and defaults fill in', () => {
  expect(parseInput(SCHEMA, ['image=oci:/a:b', 'replicas=3', 'debug=true'])).toEqual({
    image: 'oci:/a:b',
    greeting: 'Hello',
    replicas: 3,
    debug: true,
  });
});

test('a value may hold an equals sign, spaces, or nothing', () => {
  expect(parseInput(SCHEMA, ['image=r/i@sha256:a=b', 'greeting='])).toMatchObject({
    image: 'r/i@sha256:a=b',
    greeting: '',
  });
});

test('an image layout may be below a folder with spaces in its name', () => {
  const image = 'oci:/home/me/my images/web:latest';
  expect(parseInput(SCHEMA, [`image=${image}`])).toMatchObject({ image });
});

test.for([
  ['image', [], /image is missing/],
  ['image', ['image='], /image reference/],
  ['image', ['image=two words'], /image reference/],
  ['image', ['image=oci:/two\nlines:web'], /image reference/],
  ['colour', ['image=a', 'colour=red'], /unknown: the script takes image, greeting/],
  ['image', ['image=a', 'image=b'], /given twice/],
  ['replicas', ['image=a', 'replicas=two'], /whole number, got "two"/],
  ['replicas', ['image=a', 'replicas=1.5'], /whole number/],
  ['replicas', ['image=a', 'replicas=1e3'], /whole number/],
  ['replicas', ['image=a', 'replicas=9007199254740993'], /whole number/],
  ['replicas', ['image=a', 'replicas=0'], /at least 1/],
  ['replicas', ['image=a', 'replicas=9'], /at most 8/],
  ['debug', ['image=a', 'debug=yes'], /true or false/],
  ['novalue', ['novalue'], /KEY=VALUE/],
  ['__proto__', ['__proto__=1'], /unknown/],
  ['toString', ['toString=1'], /unknown/],
] as const)('a wrong input is refused by the name of its key: %s %j', ([key, pairs, message]) => {
  let problem: unknown;
  try {
    parseInput(SCHEMA, pairs);
  } catch (error) {
    problem = error;
  }
  if (!isHyphaError(problem, 'E_ARGUMENT')) throw new Error('it was accepted', { cause: problem });
  expect(problem.where).toEqual({ path: `input.${key}` });
  expect(problem.message).toMatch(message);
});

test('a script without input takes none', () => {
  expect(parseInput({}, [])).toEqual({});
  expect(() => parseInput({}, ['a=1'])).toThrow(/takes no input/);
});
