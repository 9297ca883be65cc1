import { z } from 'zod';
import type { Verifier } from './crypto-port.ts';
import { base32, concatBytes, fromHex, utf8 } from './encoding.ts';

/** Design §8: names of realms, deployments and resources. */
export const Name = z
  .string()
  .regex(
    /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/,
    'lower-case letters, digits and inner dashes, 1 to 63',
  );
export type Name = z.infer<typeof Name>;

export const KeyId = z.string().regex(/^ed25519:[a-z2-7]{52}$/);
export type KeyId = z.infer<typeof KeyId>;

export const NodeId = z.string().regex(/^node_[a-z2-7]{32}$/);
export type NodeId = z.infer<typeof NodeId>;

export const RunId = z.string().regex(/^run_[a-z2-7]{26}$/);
export type RunId = z.infer<typeof RunId>;

/** Chosen by the signer; a UUIDv7 behind the prefix. */
export const RevisionId = z
  .string()
  .regex(/^rev_[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$/);
export type RevisionId = z.infer<typeof RevisionId>;

/** Identity of a resource: what every SAL labels its objects with. */
export const Rid = z.string().regex(/^[a-z2-7]{26}$/);
export type Rid = z.infer<typeof Rid>;

export const Sha256Hex = z.string().regex(/^[0-9a-f]{64}$/);
export type Sha256Hex = z.infer<typeof Sha256Hex>;

export const Nonce = z.string().regex(/^[A-Za-z0-9_-]{22}$/);

/** `ed25519:` + base32(SHA-256(raw public key)). */
export function keyIdOf(verifier: Verifier, publicKey: Uint8Array): KeyId {
  return `ed25519:${base32(verifier.sha256(publicKey))}`;
}

/** Self-certifying: anyone can recompute it from the node's key. */
export function nodeIdOf(verifier: Verifier, publicKey: Uint8Array): NodeId {
  return `node_${base32(verifier.sha256(publicKey)).slice(0, 32)}`;
}

/**
 * The same work has the same id through every path (design §8).
 * @param envelopeDigest lower-case hex SHA-256 of the pre-authentication bytes; hashed as 32 raw bytes
 */
export function runIdOf(verifier: Verifier, envelopeDigest: string, node: NodeId): RunId {
  const hash = verifier.sha256(concatBytes(fromHex(envelopeDigest), utf8(node)));
  return `run_${base32(hash).slice(0, 26)}`;
}

/** Names cannot hold NUL, so joining with it is unambiguous. */
export function ridOf(
  verifier: Verifier,
  identity: { realm: string; deployment: string; kind: string; name: string },
): Rid {
  const { realm, deployment, kind, name } = identity;
  return base32(verifier.sha256(utf8([realm, deployment, kind, name].join('\0')))).slice(0, 26);
}
