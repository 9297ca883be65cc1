import { z } from 'zod';
import { KeyId, Name, NodeId, Sha256Hex } from './ids.ts';
import { LIMITS } from './limits.ts';
import { Capability, RunLimits } from './script-payload.ts';

export const Role = z.enum(['admin', 'operator', 'viewer', 'coordinator', 'ledger']);
export type Role = z.infer<typeof Role>;

/** Raw 32-byte Ed25519 public key in base64. */
export const PublicKey = z.string().regex(/^[A-Za-z0-9+/]{43}=$/);

const Selector = <T extends z.ZodType>(item: T) =>
  z.array(z.union([z.literal('*'), item])).max(1000);

/** One key's scope. `'*'` in a list means all. Source: design §8. */
export const Grant = z.strictObject({
  publicKey: PublicKey,
  name: Name,
  role: Role,
  realms: Selector(Name),
  caps: Selector(Capability),
  nodes: Selector(NodeId),
  /** Ceilings for `limits` of what the key signs; null: only the format's own bounds. */
  limits: RunLimits.nullable(),
  /** Seconds since 1970. */
  notBefore: z.int().nonnegative(),
  notAfter: z.int().nonnegative(),
});
export type Grant = z.infer<typeof Grant>;

export const RootKey = z.strictObject({ publicKey: PublicKey, name: Name });
export type RootKey = z.infer<typeof RootKey>;

const SignatureCount = z.int().min(1).max(LIMITS.signaturesMax);

/** What the whole fleet asks of new work; see `Authority.policy`. Source: design §8. */
export const Policy = z.strictObject({
  /** How old the newest checkpoint may be when new work is admitted, seconds. */
  checkpointMaxAge: z
    .int()
    .min(LIMITS.checkpointAgeSecondsMin)
    .max(LIMITS.checkpointAgeSecondsMax)
    .default(LIMITS.checkpointAgeSecondsDefault),
  /** How many keys, each with a grant for all of it, have to sign one script. */
  signatures: z
    .strictObject({
      default: SignatureCount.default(1),
      /** More for scripts that ask for this capability; also `destroy` and `delete-data`. */
      caps: z.record(Capability, SignatureCount).default({}),
    })
    .default({ default: 1, caps: {} }),
});
export type Policy = z.infer<typeof Policy>;

const RootSet = {
  rootKeys: z.array(RootKey).min(1).max(16),
  /** Signatures of root keys that a change of the authority needs. */
  threshold: z.int().min(1).max(16),
};

export const AuthorityChange = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('genesis'), ...RootSet }),
  z.strictObject({ type: z.literal('grant'), grant: Grant }),
  z.strictObject({ type: z.literal('revoke'), keyid: KeyId, reason: z.string().max(256) }),
  z.strictObject({ type: z.literal('revoke-node'), node: NodeId, reason: z.string().max(256) }),
  /** Signed by the old threshold and by the new one (as in TUF), so that nobody can lock the fleet out. */
  z.strictObject({ type: z.literal('rotate-root'), ...RootSet }),
  /** The one key whose checkpoints count. It signs tree heads and nothing else. */
  z.strictObject({ type: z.literal('set-ledger-key'), publicKey: PublicKey }),
  z.strictObject({ type: z.literal('set-policy'), policy: Policy }),
]);
export type AuthorityChange = z.infer<typeof AuthorityChange>;

/**
 * One link of the authority chain. `prev` is the digest (hex SHA-256 of the pre-authentication bytes)
 * of the update before it; genesis has seq 0 and no prev. Valid only under the state before it.
 */
export const AuthorityPayload = z.strictObject({
  v: z.literal(1),
  seq: z.int().nonnegative(),
  prev: Sha256Hex.nullable(),
  iat: z.int().nonnegative(),
  change: AuthorityChange,
});
export type AuthorityPayload = z.infer<typeof AuthorityPayload>;
