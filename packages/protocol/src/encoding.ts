/**
 * Byte encodings that accept exactly one spelling of every value. Node's own base64 decoder skips
 * garbage and its UTF-8 decoder replaces it, so neither may meet signed data (security notes §0.10).
 */

const BASE32 = 'abcdefghijklmnopqrstuvwxyz234567';

/** RFC 4648 base32, lower case, no padding. */
export function base32(bytes: Uint8Array): string {
  let text = '';
  let buffer = 0;
  let bits = 0;
  for (const byte of bytes) {
    buffer = (buffer << 8) | byte;
    bits += 8;
    while (bits >= 5) {
      bits -= 5;
      text += BASE32[(buffer >>> bits) & 31];
    }
    buffer &= (1 << bits) - 1;
  }
  if (bits > 0) text += BASE32[(buffer << (5 - bits)) & 31];
  return text;
}

const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0'));

export function hex(bytes: Uint8Array): string {
  let text = '';
  for (const byte of bytes) text += HEX[byte];
  return text;
}

/** Lower-case hex to bytes. Throws `RangeError` on any other spelling. */
export function fromHex(text: string): Uint8Array {
  if (!/^(?:[0-9a-f]{2})*$/.test(text)) throw new RangeError('not lower-case hex');
  const bytes = new Uint8Array(text.length / 2);
  for (let i = 0; i < bytes.length; i++)
    bytes[i] = Number.parseInt(text.slice(i * 2, i * 2 + 2), 16);
  return bytes;
}

const BASE64 = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/';
const BASE64_CODES = Uint8Array.from(BASE64, (char) => char.charCodeAt(0));
/** Set in the value of every character that is no digit of either alphabet. */
const NO_DIGIT = 0x80;
/** Character code → six bits, in both alphabets. */
const BASE64_BITS = new Uint8Array(256).fill(NO_DIGIT);
BASE64_CODES.forEach((code, bits) => {
  BASE64_BITS[code] = bits;
});
BASE64_BITS['-'.charCodeAt(0)] = 62;
BASE64_BITS['_'.charCodeAt(0)] = 63;

/** Standard base64 with padding. */
export function base64(bytes: Uint8Array): string {
  const codes = new Uint8Array(Math.ceil(bytes.length / 3) * 4).fill('='.charCodeAt(0));
  const digit = (bits: number) => BASE64_CODES[bits & 63] ?? 0;
  for (let from = 0, to = 0; from < bytes.length; from += 3, to += 4) {
    const left = bytes.length - from;
    const group =
      ((bytes[from] ?? 0) << 16) | ((bytes[from + 1] ?? 0) << 8) | (bytes[from + 2] ?? 0);
    codes[to] = digit(group >>> 18);
    codes[to + 1] = digit(group >>> 12);
    if (left > 1) codes[to + 2] = digit(group >>> 6);
    if (left > 2) codes[to + 3] = digit(group);
  }
  return decoder.decode(codes);
}

export function base64url(bytes: Uint8Array): string {
  return base64(bytes).replaceAll('+', '-').replaceAll('/', '_').replace(/=+$/, '');
}

/**
 * Small arrays live on the JavaScript heap; larger ones cost an allocation outside of it, which takes longer
 * than what is done with most of them.
 */
const ON_HEAP_BYTES = 64;
/** Used by one call at a time and never handed out, for that reason. */
const scratch = new Uint8Array(64 * 1024);

/** Character codes, valid until the next call. Throws `RangeError` when one is not ASCII. */
function readCodes(text: string): Uint8Array {
  if (text.length > scratch.length) {
    const codes = encoder.encode(text);
    if (codes.length === text.length) return codes;
  } else {
    const { read, written } = encoder.encodeInto(text, scratch);
    if (read === text.length && written === read) return scratch;
  }
  throw new RangeError('not base64');
}

/**
 * Strict base64 of either alphabet (DSSE asks verifiers to accept both): whole field, canonical
 * trailing bits, padding required in the standard alphabet and optional in the URL one.
 * Throws `RangeError` otherwise.
 */
export function fromBase64(text: string): Uint8Array {
  const standard = text.includes('+') || text.includes('/');
  if (standard && (text.includes('-') || text.includes('_')))
    throw new RangeError('mixes two base64 alphabets');
  const padding = text.endsWith('==') ? 2 : text.endsWith('=') ? 1 : 0;
  const digits = text.length - padding;
  const spare = digits % 4;
  const padded = text.length % 4 === 0;
  if (spare === 1 || (padding > 0 && !padded) || (!padded && standard))
    throw new RangeError('not padded as base64');
  const codes = readCodes(text);
  const bytes = new Uint8Array(Math.floor((digits * 3) / 4));
  const bits = (at: number) => BASE64_BITS[codes[at] ?? 0] ?? NO_DIGIT;
  let faults = 0;
  const whole = digits - spare;
  let to = 0;
  // Read signed payloads all day: no call inside, and every fault is found by one test at the end.
  for (let at = 0; at < whole; at += 4) {
    const a = BASE64_BITS[codes[at] ?? 0] ?? NO_DIGIT;
    const b = BASE64_BITS[codes[at + 1] ?? 0] ?? NO_DIGIT;
    const c = BASE64_BITS[codes[at + 2] ?? 0] ?? NO_DIGIT;
    const d = BASE64_BITS[codes[at + 3] ?? 0] ?? NO_DIGIT;
    faults |= a | b | c | d;
    bytes[to++] = (a << 2) | (b >>> 4);
    bytes[to++] = (b << 4) | (c >>> 2);
    bytes[to++] = (c << 6) | d;
  }
  if (spare > 0) {
    const [a, b, c] = [bits(whole), bits(whole + 1), spare === 3 ? bits(whole + 2) : 0];
    faults |= a | b | c;
    bytes[to] = (a << 2) | (b >>> 4);
    if (spare === 3) bytes[to + 1] = (b << 4) | (c >>> 2);
    // Bits beyond the last byte: another spelling of the same bytes unless they are zero.
    const beyond = spare === 3 ? c & 0b11 : b & 0b1111;
    if (beyond !== 0) throw new RangeError('not canonical base64');
  }
  if ((faults & NO_DIGIT) !== 0) throw new RangeError('not base64');
  return bytes;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

export function utf8(text: string): Uint8Array {
  const { length } = text;
  if (length > ON_HEAP_BYTES) return encoder.encode(text);
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length; at++) {
    const code = text.charCodeAt(at);
    if (code > 0x7f) return encoder.encode(text);
    bytes[at] = code;
  }
  return bytes;
}

const borrowed = new Uint8Array(64 * 1024);

/** Calls `use` with the UTF-8 of a text. The bytes are lent: they are others' once it returns. */
export function withUtf8<T>(text: string, use: (bytes: Uint8Array) => T): T {
  // At most three bytes a UTF-16 unit.
  if (text.length * 3 > borrowed.length) return use(encoder.encode(text));
  return use(borrowed.subarray(0, encoder.encodeInto(text, borrowed).written));
}

/** Whether a text has more than `max` bytes of UTF-8. */
export function isLongerThan(text: string, max: number): boolean {
  return text.length > max || (text.length * 3 > max && utf8(text).length > max);
}

/** Throws `TypeError` on invalid UTF-8 and `RangeError` on a byte order mark. */
export function fromUtf8(bytes: Uint8Array): string {
  const text = decoder.decode(bytes);
  if (text.startsWith('\uFEFF')) throw new RangeError('byte order mark');
  return text;
}

export function concatBytes(...parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((total, part) => total + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    whole.set(part, offset);
    offset += part.length;
  }
  return whole;
}
