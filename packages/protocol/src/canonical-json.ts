import canonicalize from 'canonicalize';
import { utf8 } from './encoding.ts';

/**
 * RFC 8785 text. For comparing and hashing values we made ourselves, never for signed input: signed
 * things are hashed as the bytes that were signed (design §8). Throws on anything that is not JSON.
 */
export function canonicalJson(value: unknown): string {
  const text = canonicalize(value);
  if (text === undefined) throw new TypeError('not a JSON value');
  return text;
}

export function canonicalBytes(value: unknown): Uint8Array {
  return utf8(canonicalJson(value));
}
