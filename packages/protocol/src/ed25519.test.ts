import { describe, expect, test } from 'vitest';
import { keyOf } from '../test/fleet.ts';
import { countCases, readVectors, VECTORS_MISSING } from '../test/shared-vectors.ts';
import {
  findSignatureFault,
  fromHex,
  hex,
  isCanonicalSignature,
  isSoundPublicKey,
} from './index.ts';
import { nodeVerifier } from './node/index.ts';

const L = 2n ** 252n + 27742317777372353535851937790883648493n;
const P = 2n ** 255n - 19n;
const littleEndian = (value: bigint) => fromHex(value.toString(16).padStart(64, '0')).reverse();
const fromLittleEndian = (bytes: Uint8Array) => BigInt(`0x${hex(bytes.slice().reverse())}`);

interface Wycheproof {
  readonly testGroups: readonly {
    readonly publicKey: { readonly pk: string };
    readonly tests: readonly {
      readonly tcId: number;
      readonly msg: string;
      readonly sig: string;
      readonly result: 'valid' | 'invalid';
    }[];
  }[];
}

describe('published Ed25519 vectors', () => {
  const vectors = readVectors('wycheproof/ed25519_test.json') as Wycheproof | undefined;

  test('every Wycheproof case gets its verdict', (context) => {
    if (vectors === undefined) context.skip(VECTORS_MISSING);
    const wrong: number[] = [];
    let count = 0;
    for (const group of vectors?.testGroups ?? []) {
      for (const { tcId, msg, sig, result } of group.tests) {
        count++;
        const fault = findSignatureFault(nodeVerifier, {
          publicKey: fromHex(group.publicKey.pk),
          message: fromHex(msg),
          signature: fromHex(sig),
        });
        if ((fault === undefined) !== (result === 'valid')) wrong.push(tcId);
      }
    }
    expect(wrong).toEqual([]);
    expect(count).toBe(151);
    countCases(context, 'Wycheproof Ed25519', count);
  });
});

describe('public keys', () => {
  const soundKey = keyOf('operator').publicKey;

  test('a generated key is sound', () => {
    expect(isSoundPublicKey(soundKey)).toBe(true);
  });

  test.for([
    ['the identity', littleEndian(1n)],
    ['the point of order 2', littleEndian(P - 1n)],
    ['a point of order 4', littleEndian(0n)],
    ['its negative', littleEndian(2n ** 255n)],
    ['the identity with a sign', littleEndian(1n + 2n ** 255n)],
    ['the point of order 2 with a sign', littleEndian(P - 1n + 2n ** 255n)],
    ['order 4, y written as p', littleEndian(P)],
    ['the identity, y written as p + 1', littleEndian(P + 1n)],
    ...[
      '26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05',
      '26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85',
      'c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a',
      'c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa',
    ].map((point) => [`${point} of order 8`, fromHex(point)] as const),
  ] as const)('%s is refused', ([, point]) => {
    expect(isSoundPublicKey(point)).toBe(false);
  });

  test('y at or above the field prime is refused', () => {
    for (let y = P; y < 2n ** 255n; y++) expect(isSoundPublicKey(littleEndian(y))).toBe(false);
  });

  test('a y that belongs to no point of the curve is refused', () => {
    // Computed apart from this code, by the square root of RFC 8032 §5.1.3, for y = 2 … 9.
    const onCurve = [false, true, true, true, true, false, false, true];
    const verdicts = onCurve.map((_, index) => isSoundPublicKey(littleEndian(BigInt(index + 2))));
    expect(verdicts).toEqual(onCurve);
  });

  test.for([0, 31, 33, 64])('%i bytes are no key', (length) => {
    const bytes = new Uint8Array([...soundKey, ...soundKey]).slice(0, length);
    expect(isSoundPublicKey(bytes)).toBe(false);
  });
});

describe('signatures', () => {
  const signer = keyOf('operator');
  const message = new TextEncoder().encode('a message');
  const signature = signer.sign(message);
  const faultOf = (changed: Uint8Array) =>
    findSignatureFault(nodeVerifier, {
      publicKey: signer.publicKey,
      message,
      signature: changed,
    });

  test('a fresh signature has no fault', () => {
    expect(faultOf(signature)).toBeUndefined();
  });

  test('S + L is another spelling of S and refused as malleable', () => {
    const s = fromLittleEndian(signature.slice(32));
    const other = new Uint8Array([...signature.slice(0, 32), ...littleEndian(s + L)]);
    expect(faultOf(other)).toBe('E_SIG_MALLEABLE');
  });

  test('S equal to L is refused and S just below it is canonical', () => {
    const withS = (s: bigint) => new Uint8Array([...signature.slice(0, 32), ...littleEndian(s)]);
    expect(isCanonicalSignature(withS(L))).toBe(false);
    expect(isCanonicalSignature(withS(L - 1n))).toBe(true);
  });

  test.for([
    ['y above the prime', littleEndian(P + 2n)],
    ['x = 0 with a sign', littleEndian(1n + 2n ** 255n)],
    ['y = -1 with a sign', littleEndian(P - 1n + 2n ** 255n)],
  ] as const)('R with %s is refused as malleable', ([, r]) => {
    expect(faultOf(new Uint8Array([...r, ...signature.slice(32)]))).toBe('E_SIG_MALLEABLE');
  });

  test('every flipped bit is refused', () => {
    for (let bit = 0; bit < 512; bit++) {
      const changed = signature.slice();
      changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      expect(faultOf(changed)).not.toBeUndefined();
    }
  });

  test('63 and 65 bytes are refused', () => {
    expect(faultOf(signature.slice(0, 63))).toBe('E_SIG_MALLEABLE');
    expect(faultOf(new Uint8Array([...signature, 0]))).toBe('E_SIG_MALLEABLE');
  });

  test('the key that signs anything is refused before it can', () => {
    // Identity key, R = identity, S = 0: a plain verifier of RFC 8032 finds nothing wrong with it.
    const identity = littleEndian(1n);
    const fault = findSignatureFault(
      { ...nodeVerifier, verifyEd25519: () => true },
      {
        publicKey: identity,
        message,
        signature: new Uint8Array([...identity, ...new Uint8Array(32)]),
      },
    );
    expect(fault).toBe('E_WEAK_KEY');
  });
});
