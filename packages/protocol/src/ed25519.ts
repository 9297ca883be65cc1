/**
 * The checks RFC 8032 leaves to the caller. Libraries and OpenSSL versions disagree on them (security
 * notes §0.7, §0.8), so we make them ourselves, and the machine's verifier only has to get plain
 * signatures right: one encoding per key, one signature per key and message, no key that signs anything.
 */
import type { Verifier } from './crypto-port.ts';
import { fromHex, hex } from './encoding.ts';

/** Field prime 2^255 - 19 and group order L (RFC 8032 §5.1). */
const P = 2n ** 255n - 19n;
const L = 2n ** 252n + 27742317777372353535851937790883648493n;
/** Curve constant -121665/121666. */
const D = 37095705934669439343138083508754565189542113879843219016388785533085940283555n;

const P_BYTES = toLittleEndian(P);
const L_BYTES = toLittleEndian(L);
/** y = 1 and y = -1: x is 0 there, so a set sign bit is a second spelling of the same point. */
const Y_ONE = toLittleEndian(1n);
const Y_MINUS_ONE = toLittleEndian(P - 1n);

/** The y of every point whose order divides 8, sign bit clear. */
const SMALL_ORDER_Y: readonly Uint8Array[] = [
  toLittleEndian(0n),
  Y_ONE,
  Y_MINUS_ONE,
  fromHex('26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05'),
  fromHex('c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a'),
];

export type SignatureFault = 'E_WEAK_KEY' | 'E_SIG_MALLEABLE' | 'E_SIG_INVALID';

/**
 * Strict verdict on one signature; undefined when it holds. Checks in the order of security notes §1.4
 * steps 7 to 9, so that the fault named is always the first.
 */
export function findSignatureFault(
  verifier: Verifier,
  signed: { publicKey: Uint8Array; message: Uint8Array; signature: Uint8Array },
): SignatureFault | undefined {
  if (!isSoundPublicKey(signed.publicKey)) return 'E_WEAK_KEY';
  if (!isCanonicalSignature(signed.signature)) return 'E_SIG_MALLEABLE';
  const holds = verifier.verifyEd25519(signed.publicKey, signed.message, signed.signature);
  return holds ? undefined : 'E_SIG_INVALID';
}

/** Key text → verdict. Keys are few and come back with every envelope; the curve check is costly. */
const soundKeys = new Map<string, boolean>();
const SOUND_KEYS_MAX = 4096;

/** 32 bytes, the one encoding of a point on the curve, and not of small order. */
export function isSoundPublicKey(publicKey: Uint8Array): boolean {
  if (publicKey.length !== 32) return false;
  const text = hex(publicKey);
  const known = soundKeys.get(text);
  if (known !== undefined) return known;
  const y = withoutSign(publicKey);
  const sound =
    isBelow(y, P_BYTES) &&
    !SMALL_ORDER_Y.some((small) => isSame(small, y)) &&
    isOnCurve(fromLittleEndian(y));
  if (soundKeys.size >= SOUND_KEYS_MAX) soundKeys.clear();
  soundKeys.set(text, sound);
  return sound;
}

/** 64 bytes, S below L, and R in the one encoding its point has. */
export function isCanonicalSignature(signature: Uint8Array): boolean {
  if (signature.length !== 64) return false;
  const r = signature.subarray(0, 32);
  const y = withoutSign(r);
  const signed = ((r[31] ?? 0) & 0x80) !== 0;
  if (signed && (isSame(y, Y_ONE) || isSame(y, Y_MINUS_ONE))) return false;
  return isBelow(y, P_BYTES) && isBelow(signature.subarray(32), L_BYTES);
}

/** x² = (y² - 1) / (dy² + 1) has a root: Euler's criterion on the product, which has the same character. */
function isOnCurve(y: bigint): boolean {
  const square = (y * y) % P;
  const product = ((square - 1n + P) * (D * square + 1n)) % P;
  return product === 0n || power(product, (P - 1n) / 2n) === 1n;
}

function power(base: bigint, exponent: bigint): bigint {
  let result = 1n;
  let square = base;
  for (let rest = exponent; rest > 0n; rest >>= 1n) {
    if (rest & 1n) result = (result * square) % P;
    square = (square * square) % P;
  }
  return result;
}

function withoutSign(point: Uint8Array): Uint8Array {
  const y = point.slice(0, 32);
  y[31] = (y[31] ?? 0) & 0x7f;
  return y;
}

/** Little-endian `a < b` of two 32-byte numbers. */
function isBelow(a: Uint8Array, b: Uint8Array): boolean {
  for (let i = 31; i >= 0; i--) {
    const difference = (a[i] ?? 0) - (b[i] ?? 0);
    if (difference !== 0) return difference < 0;
  }
  return false;
}

function isSame(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

function toLittleEndian(value: bigint): Uint8Array {
  return fromHex(value.toString(16).padStart(64, '0')).reverse();
}

function fromLittleEndian(bytes: Uint8Array): bigint {
  return bytes.reduceRight((value, byte) => (value << 8n) | BigInt(byte), 0n);
}
