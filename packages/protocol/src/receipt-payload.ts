import { z } from 'zod';
import { Name, NodeId, RunId, Sha256Hex } from './ids.ts';
import { Leftover } from './journal-event.ts';
import { ScriptMode } from './script-payload.ts';

/** What a node signs at the end of every accepted run. Times in epoch milliseconds. Source: design §8. */
export const ReceiptPayload = z.strictObject({
  v: z.literal(1),
  run: RunId,
  envelopeDigest: Sha256Hex,
  node: NodeId,
  realm: Name,
  deployment: Name,
  generation: z.int(),
  mode: ScriptMode,
  state: z.enum(['succeeded', 'failed', 'cancelled', 'rejected']),
  code: z.string().optional(),
  startedAt: z.int().nonnegative().nullable(),
  endedAt: z.int().nonnegative(),
  /** Steps with a recorded outcome. */
  steps: z.int().nonnegative(),
  /** Hash of the run's last journal event. */
  journalHead: Sha256Hex,
  outputSha256: Sha256Hex.optional(),
  /** Steps that were undone. */
  undone: z.int().nonnegative(),
  leftovers: z.array(Leftover),
  cancelRequestedAt: z.int().nonnegative().optional(),
  /** Digest of this node's receipt before this one; null for its first. */
  prev: Sha256Hex.nullable(),
  seq: z.int().min(1),
  authoritySeq: z.int().nonnegative(),
});
export type ReceiptPayload = z.infer<typeof ReceiptPayload>;
