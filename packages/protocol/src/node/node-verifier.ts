import { createPublicKey, hash, type KeyObject, verify } from 'node:crypto';
import type { Verifier } from '../crypto-port.ts';
import { hex } from '../encoding.ts';

/** DER of a SubjectPublicKeyInfo for Ed25519 up to the raw key (RFC 8410). */
const SPKI_PREFIX = Buffer.from('302a300506032b6570032100', 'hex');

/** Parsed keys: importing costs as much as a fifth of a verification (security notes §2.5). */
const keyCache = new Map<string, KeyObject>();
const KEY_CACHE_MAX = 4096;

function keyObject(publicKey: Uint8Array): KeyObject {
  const id = hex(publicKey);
  const cached = keyCache.get(id);
  if (cached !== undefined) return cached;
  const der = Buffer.concat([SPKI_PREFIX, publicKey]);
  const key = createPublicKey({ key: der, format: 'der', type: 'spki' });
  if (keyCache.size >= KEY_CACHE_MAX) keyCache.clear();
  keyCache.set(id, key);
  return key;
}

/** By way of a string, because a buffer of 32 bytes costs more than hashing a short message. */
function sha256(bytes: Uint8Array): Uint8Array {
  const text = hash('sha256', bytes, 'binary');
  const digest = new Uint8Array(32);
  for (let at = 0; at < 32; at++) digest[at] = text.charCodeAt(at);
  return digest;
}

/** `Verifier` on `node:crypto`. Only Node 24's OpenSSL gives the verdicts we test for (design §6). */
export const nodeVerifier: Verifier = {
  sha256,
  verifyEd25519: (publicKey, message, signature) => {
    if (publicKey.length !== 32 || signature.length !== 64) return false;
    try {
      return verify(null, message, keyObject(publicKey), signature);
    } catch {
      return false;
    }
  },
};
