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

export function hex(bytes: Uint8Array): string {
  let text = '';
  for (const byte of bytes) text += byte.toString(16).padStart(2, '0');
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

/** Standard base64 with padding. */
export function base64(bytes: Uint8Array): string {
  // In chunks: a spread of a whole payload would overflow the argument list.
  let binary = '';
  for (let i = 0; i < bytes.length; i += 0x8000) {
    binary += String.fromCharCode(...bytes.subarray(i, i + 0x8000));
  }
  return btoa(binary);
}

export function base64url(bytes: Uint8Array): string {
  return base64(bytes).replaceAll('+', '-').replaceAll('/', '_').replace(/=+$/, '');
}

/**
 * Strict base64 of either alphabet (DSSE asks verifiers to accept both): whole field, canonical
 * trailing bits, padding required in the standard alphabet and optional in the URL one.
 * Throws `RangeError` otherwise.
 */
export function fromBase64(text: string): Uint8Array {
  const standard = /^[A-Za-z0-9+/]*={0,2}$/.test(text);
  if (!standard && !/^[A-Za-z0-9_-]*={0,2}$/.test(text)) throw new RangeError('not base64');
  let binary: string;
  try {
    binary = atob(text.replaceAll('-', '+').replaceAll('_', '/'));
  } catch {
    throw new RangeError('not base64');
  }
  const bytes = Uint8Array.from(binary, (char) => char.charCodeAt(0));
  // Re-encoding is the check: it catches loose trailing bits and wrong padding in one comparison.
  const url = base64url(bytes);
  if (base64(bytes) !== text && url !== text && url !== text.replace(/=+$/, '')) {
    throw new RangeError('not canonical base64');
  }
  return bytes;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

export function utf8(text: string): Uint8Array {
  return encoder.encode(text);
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
