import { z } from 'zod';
import { PublicKey } from './authority-payload.ts';
import { Envelope } from './dsse.ts';
import { Name, NodeId, Nonce, Sha256Hex } from './ids.ts';
import { ResourceLimits } from './script-payload.ts';

/** Labels placement selects by. They come from the admission, never from the node. */
export const Labels = z
  .record(z.string().regex(/^[a-z0-9](?:[a-z0-9./-]{0,61}[a-z0-9])?$/), z.string().max(63))
  .refine((labels) => Object.keys(labels).length <= 64, 'more than 64 labels');
export type Labels = z.infer<typeof Labels>;

/** An admin's permission for one machine to join: for whoever holds a token, or for one node id. Design §8. */
export const AdmissionPayload = z
  .strictObject({
    v: z.literal(1),
    /** Hex SHA-256 of the raw token secret. */
    tokenHash: Sha256Hex.optional(),
    /** The one node that is let in, by its fingerprint. */
    node: NodeId.optional(),
    /** The node whose name passes to this one: it was given a new key (re-key by an admin). */
    replaces: NodeId.optional(),
    name: Name,
    realms: z
      .array(z.union([z.literal('*'), Name]))
      .min(1)
      .max(1000),
    labels: Labels,
    iat: z.int().nonnegative(),
    exp: z.int().nonnegative(),
  })
  .refine(
    ({ tokenHash, node }) => (tokenHash === undefined) !== (node === undefined),
    'names not exactly one of tokenHash and node',
  );
export type AdmissionPayload = z.infer<typeof AdmissionPayload>;

/** What a node is: measured, never trusted for placement labels. Sizes in bytes. */
export const NodeFacts = z.strictObject({
  hostname: z.string().max(255),
  os: z.string().max(255),
  kernel: z.string().max(255),
  arch: z.string().max(64),
  cpus: z.int().nonnegative(),
  memoryBytes: z.int().nonnegative(),
  storageBytes: z.int().nonnegative(),
  hyphaVersion: z.string().max(64),
  nodeVersion: z.string().max(64),
  /** cgroup layout of the machine: `v1`, `v2`, `hybrid` or `none`. */
  cgroups: z.string().max(16),
  /** Per SAL kind: does it work here, for real or simulated, and if not, why. */
  sals: z.record(
    z.string(),
    z.strictObject({
      state: z.enum(['real', 'simulated', 'unavailable']),
      driver: z.string().max(128),
      reason: z.string().max(1024).optional(),
    }),
  ),
  /** What a person has to look into: the clock, the ledger. Absent when there is nothing. */
  alarms: z.array(z.string().max(1024)).max(16).optional(),
});
export type NodeFacts = z.infer<typeof NodeFacts>;

/**
 * Signed by the node key: proves possession and answers the ledger's challenge. Without an admission it is
 * a request to be let in. The same key may enrol again with another `sealKey`: that rotates it.
 */
export const EnrolPayload = z.strictObject({
  v: z.literal(1),
  publicKey: PublicKey,
  /** X25519 public key secrets are sealed to, base64. */
  sealKey: PublicKey,
  admission: Envelope.optional(),
  /** The raw token secret, base64url; its SHA-256 is the admission's `tokenHash`. Spent by this enrolment. */
  token: z.string().max(64).optional(),
  /** The node whose place this key takes under the same admission; signed by that node's key as well. */
  replaces: NodeId.optional(),
  challenge: Nonce,
  bootId: z.string().max(64),
  iat: z.int().nonnegative(),
  facts: NodeFacts,
});
export type EnrolPayload = z.infer<typeof EnrolPayload>;

/** Regular sign of life. `uptimeMs` is monotonic since boot; `seq` grows by one per node, gaps show. */
export const ReportPayload = z.strictObject({
  v: z.literal(1),
  node: NodeId,
  seq: z.int().min(1),
  bootId: z.string().max(64),
  uptimeMs: z.int().nonnegative(),
  at: z.int().nonnegative(),
  facts: NodeFacts,
  reserved: ResourceLimits,
  /** Free capacity after reservations. */
  free: ResourceLimits,
  runsActive: z.int().nonnegative(),
  authoritySeq: z.int().nonnegative(),
});
export type ReportPayload = z.infer<typeof ReportPayload>;
