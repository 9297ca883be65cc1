import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { canonicalJson } from './canonical-json.ts';
import { utf8 } from './encoding.ts';
import { parseStrictJson, StrictJsonError } from './strict-json.ts';

const offsetOf = (text: string | Uint8Array) => {
  try {
    parseStrictJson(text);
  } catch (error) {
    if (error instanceof StrictJsonError) return error.offset;
    throw error;
  }
  return null;
};

/** Any JSON value whose numbers a double holds exactly. */
const jsonValue = fc.letrec<{ value: unknown }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 5, withCrossShrink: true },
    fc.constant(null),
    fc.boolean(),
    fc.maxSafeInteger(),
    fc.double({ noNaN: true, min: -1e6, max: 1e6 }),
    fc.string({ unit: 'binary' }),
    fc.array(tie('value'), { maxLength: 5 }),
    fc.dictionary(
      fc.string({ unit: 'grapheme' }).filter((key) => key !== '__proto__'),
      tie('value'),
      { maxKeys: 5, noNullPrototype: true },
    ),
  ),
})).value;

describe('strict JSON', () => {
  test('reads every value JSON.stringify writes, as it was', () => {
    fc.assert(
      fc.property(jsonValue, (value) => {
        const text = JSON.stringify(value);
        // JSON.stringify writes -0 as 0, so compare with what it wrote.
        expect(parseStrictJson(text)).toEqual(JSON.parse(text));
      }),
      { numRuns: 500 },
    );
  });

  test('accepts nothing that JSON.parse refuses', () => {
    const letters = fc.constantFrom(...'{}[]",:\\u0012eE+-.tfn rulase\n\u0001"aA');
    fc.assert(
      fc.property(fc.string({ unit: letters, maxLength: 14 }), (text) => {
        if (offsetOf(text) === null) expect(() => JSON.parse(text)).not.toThrow();
      }),
      { numRuns: 5000 },
    );
  });

  test('a mutation of valid JSON is refused or read as JSON.parse reads it', () => {
    const letters = fc.constantFrom(...'{}[]",:\\0-1.eE u');
    const mutated = fc.tuple(jsonValue, fc.nat(), letters).map(([value, at, letter]) => {
      const text = JSON.stringify(value);
      const index = at % (text.length + 1);
      return text.slice(0, index) + letter + text.slice(index + 1);
    });
    fc.assert(
      fc.property(mutated, (text) => {
        if (offsetOf(text) === null) expect(parseStrictJson(text)).toEqual(JSON.parse(text));
      }),
      { numRuns: 2000 },
    );
  });

  test('reads canonical JSON back to the same canonical text', () => {
    fc.assert(
      fc.property(jsonValue, (value) => {
        const text = canonicalJson(value);
        expect(canonicalJson(parseStrictJson(text))).toBe(text);
      }),
    );
  });

  test.for([
    ['a duplicate key', '{"a":1,"a":1}'],
    ['a duplicate key spelled by escape', '{"a":1,"\\u0061":1}'],
    ['a duplicate key deep inside', '[{"x":{"b":1,"c":2,"b":3}}]'],
    ['__proto__', '{"__proto__":{}}'],
    ['an integer beyond 2^53-1', '9007199254740993'],
    ['the same with an exponent', '1e300'],
    ['a number out of range', '1e999'],
    ['negative zero', '-0'],
    ['a leading zero', '01'],
    ['a plus sign', '+1'],
    ['a bare fraction', '.5'],
    ['an unfinished fraction', '1.'],
    ['NaN', 'NaN'],
    ['a lone surrogate', '"\\ud800"'],
    ['a raw control character', '"\u0001"'],
    ['a raw line break in a string', '"a\nb"'],
    ['an unknown escape', '"\\x41"'],
    ['a cut escape', '"\\u00'],
    ['a backslash at the end', '"\\'],
    ['an unterminated string', '"abc'],
    ['single quotes', "'a'"],
    ['a comment', '{} // x'],
    ['a trailing comma', '[1,]'],
    ['a trailing comma in an object', '{"a":1,}'],
    ['a missing comma', '[1 2]'],
    ['a missing colon', '{"a" 1}'],
    ['an unquoted key', '{a:1}'],
    ['two values', '{} {}'],
    ['nothing', ''],
    ['blanks', '  '],
    ['a byte order mark', '\uFEFF{}'],
    ['a no-break space', '\u00a0{}'],
  ] as const)('%s is refused', ([, text]) => {
    expect(() => parseStrictJson(text)).toThrow(StrictJsonError);
    expect(() => parseStrictJson(utf8(text))).toThrow(StrictJsonError);
  });

  test('bytes that are not UTF-8 are refused', () => {
    expect(offsetOf(new Uint8Array([0x22, 0xff, 0x22]))).toBe(0);
  });

  test('nesting is bounded, and the bound itself is read', () => {
    expect(offsetOf('['.repeat(64) + ']'.repeat(64))).toBeNull();
    expect(offsetOf('['.repeat(65) + ']'.repeat(65))).not.toBeNull();
    expect(offsetOf('['.repeat(100_000))).not.toBeNull();
  });

  test('an escaped pair of surrogates is one character', () => {
    expect(parseStrictJson('"\\ud83d\\ude00"')).toBe('😀');
  });

  test('the names of Object.prototype are ordinary keys', () => {
    expect(parseStrictJson('{"constructor":1,"toString":2}')).toEqual({
      constructor: 1,
      toString: 2,
    });
  });

  test('the offset points at the fault', () => {
    expect(offsetOf('{"a": tru}')).toBe(6);
    expect(offsetOf('[1, 2')).toBe(5);
  });

  test.for(['1.5', '1.0', '15e1', '1E0', '-2.0'])(
    'the float %s is refused where only integers are allowed',
    (number) => {
      expect(parseStrictJson(`{"a":[${number}]}`)).toEqual({ a: [Number(number)] });
      expect(() => parseStrictJson(`{"a":[${number}]}`, { integersOnly: true })).toThrow(
        StrictJsonError,
      );
      expect(parseStrictJson('{"a":[-150,0]}', { integersOnly: true })).toEqual({ a: [-150, 0] });
    },
  );
});
