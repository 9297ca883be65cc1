import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  base32,
  base64,
  base64url,
  concatBytes,
  fromBase64,
  fromHex,
  fromUtf8,
  hex,
  isLongerThan,
  utf8,
  withUtf8,
} from './encoding.ts';

const bytes = fc.uint8Array({ maxLength: 300 });

describe('base64', () => {
  test.for([65_532, 65_536, 65_540])(
    'of %i characters decodes, and not with one that is none',
    (length) => {
      const value = new Uint8Array((length / 4) * 3).map((_, at) => at * 31);
      const text = base64(value);
      expect(text).toHaveLength(length);
      expect(Buffer.compare(fromBase64(text), value)).toBe(0);
      for (const odd of ['é', ' ', '\u0141', '='])
        expect(() => fromBase64(text.slice(0, -1) + odd + text.slice(-1))).toThrow(RangeError);
      for (const odd of ['é', '.', '\u0141', '='])
        expect(() => fromBase64(odd + text.slice(1))).toThrow(RangeError);
    },
  );

  test('encodes as Node does', () => {
    fc.assert(
      fc.property(bytes, (value) => {
        expect(base64(value)).toBe(Buffer.from(value).toString('base64'));
        expect(base64url(value)).toBe(Buffer.from(value).toString('base64url'));
      }),
    );
  });

  test('every encoding of either alphabet decodes to the same bytes', () => {
    fc.assert(
      fc.property(bytes, (value) => {
        const text = base64(value);
        const url = base64url(value);
        const urlPadded = url + '='.repeat((4 - (url.length % 4)) % 4);
        for (const spelling of [text, url, urlPadded]) expect(fromBase64(spelling)).toEqual(value);
      }),
    );
  });

  test('whatever decodes is one of those spellings', () => {
    const letters = fc.constantFrom(...'ABab09+/-_= \n.é');
    fc.assert(
      fc.property(fc.string({ unit: letters, maxLength: 12 }), (text) => {
        let value: Uint8Array;
        try {
          value = fromBase64(text);
        } catch (error) {
          expect(error).toBeInstanceOf(RangeError);
          return;
        }
        const url = base64url(value);
        const urlPadded = url + '='.repeat((4 - (url.length % 4)) % 4);
        expect([base64(value), url, urlPadded]).toContain(text);
      }),
      { numRuns: 2000 },
    );
  });

  test.for([
    ['trailing bits', 'QQ==', 'QR=='],
    ['trailing bits of two bytes', 'QUI=', 'QUJ='],
    ['missing padding beside a plus', '+w==', '+w'],
    ['padding in the middle', 'QUI=', 'Q=UI'],
    ['too much padding', 'QQ==', 'QQ==='],
    ['padding alone', '', '='],
    ['a line break', 'QUJD', 'QUJD\n'],
    ['a space', 'QUJD', 'QU JD'],
    ['both alphabets', '+/+/', '+/-_'],
    ['one digit', 'QUJD', 'Q'],
    ['a character beyond ASCII', 'QUJD', 'QUJé'],
  ] as const)('%s is refused', ([, good, bad]) => {
    expect(() => fromBase64(good)).not.toThrow();
    expect(() => fromBase64(bad)).toThrow(RangeError);
  });
});

describe('hex', () => {
  test('round trips', () => {
    fc.assert(
      fc.property(bytes, (value) => {
        expect(hex(value)).toBe(Buffer.from(value).toString('hex'));
        expect(fromHex(hex(value))).toEqual(value);
      }),
    );
  });

  test.for(['A0', 'a', '0g', ' 00', '0x00'])('%j is refused', (text) => {
    expect(() => fromHex(text)).toThrow(RangeError);
  });
});

describe('base32', () => {
  test.for([
    // RFC 4648 §10, lower case and without padding.
    ['', ''],
    ['f', 'my'],
    ['fo', 'mzxq'],
    ['foo', 'mzxw6'],
    ['foob', 'mzxw6yq'],
    ['fooba', 'mzxw6ytb'],
    ['foobar', 'mzxw6ytboi'],
  ] as const)('%j is %j', ([text, expected]) => {
    expect(base32(utf8(text))).toBe(expected);
  });

  test('different bytes of one length never share a spelling', () => {
    const pair = fc
      .integer({ min: 1, max: 40 })
      .chain((length) => {
        const same = fc.uint8Array({ minLength: length, maxLength: length });
        return fc.tuple(same, same);
      })
      .filter(([a, b]) => hex(a) !== hex(b));
    fc.assert(
      fc.property(pair, ([a, b]) => {
        expect(base32(a)).not.toBe(base32(b));
      }),
    );
  });
});

describe('UTF-8', () => {
  test('round trips every well-formed text but a leading byte order mark', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (text) => {
        fc.pre(!text.startsWith('\uFEFF'));
        expect(fromUtf8(utf8(text))).toBe(text);
      }),
    );
  });

  const LETTERS = ['a', 'é', '€', '😀', '\ud800'];
  /** Around the lengths at which it is made in other ways. */
  const LENGTHS = [0, 1, 63, 64, 65, 21_845, 21_846, 65_536, 65_537];

  test.for(LETTERS)('of %s is what the platform makes of it, at any length', (letter) => {
    const encoder = new TextEncoder();
    for (const length of LENGTHS) {
      const text = 'x'.repeat(Math.max(0, length - 1)) + (length === 0 ? '' : letter);
      const expected = encoder.encode(text);
      expect(Buffer.compare(utf8(text), expected)).toBe(0);
      expect(withUtf8(text, (lent) => Buffer.compare(lent, expected))).toBe(0);
      for (const max of [expected.length - 1, expected.length, expected.length + 1])
        expect(isLongerThan(text, max)).toBe(expected.length > max);
    }
  });

  test.for([
    ['overlong', [0xc0, 0x80]],
    ['cut', [0xe2, 0x82]],
    ['a surrogate', [0xed, 0xa0, 0x80]],
    ['a byte order mark', [0xef, 0xbb, 0xbf, 0x7b]],
  ] as const)('%s is refused', ([, raw]) => {
    expect(() => fromUtf8(new Uint8Array(raw))).toThrow();
  });
});

test('concatenation keeps order and every byte', () => {
  fc.assert(
    fc.property(fc.array(bytes, { maxLength: 5 }), (parts) => {
      expect([...concatBytes(...parts)]).toEqual(parts.flatMap((part) => [...part]));
    }),
  );
});
