import { z } from 'zod';
import { PublicKey } from './authority-payload.ts';
import { Envelope } from './dsse.ts';
import { Problem } from './hypha-error.ts';
import { KeyId, Name, NodeId, Rid, RunId, Sha256Hex } from './ids.ts';
import { JournalEvent } from './journal-event.ts';
import { Json } from './json-value.ts';
import { LIMITS } from './limits.ts';
import { Labels, NodeFacts } from './node-payloads.ts';
import { RunState } from './run-state.ts';
import { ResourceLimits, ScriptMode } from './script-payload.ts';

/** Bodies of the HTTP API (design §9). Requests are strict; answers may gain members. */

export const Submission = z.strictObject({
  envelope: Envelope,
  /** Stapled authority updates the receiver may lack; verified as if they came from the ledger. */
  authority: z.array(Envelope).max(LIMITS.authorityUpdatesMax).optional(),
  /** Signed log head (C2SP note) that the sender knows; verified as if it came from the ledger. */
  checkpoint: z.string().max(LIMITS.checkpointCharsMax).optional(),
});
export type Submission = z.infer<typeof Submission>;

export const SubmissionAccepted = z.object({
  revision: z.string(),
  runs: z.array(z.object({ run: RunId, node: NodeId })),
  /** Present when this digest was accepted before: the same runs are answered. */
  existing: z.literal(true).optional(),
});
export type SubmissionAccepted = z.infer<typeof SubmissionAccepted>;

/** Answer to `POST /v1/cancellations`: it is durable where it was sent. */
export const CancellationAccepted = z.object({
  /** Digest of the cancel envelope. */
  cancellation: Sha256Hex,
  /** Digest of the script envelope it ends. */
  target: Sha256Hex,
  /** Runs of the target that are known here and not over; empty: a tombstone is kept (design §8). */
  runs: z.array(z.object({ run: RunId, node: NodeId })),
  existing: z.literal(true).optional(),
});
export type CancellationAccepted = z.infer<typeof CancellationAccepted>;

export const PlacementRequest = z.strictObject({
  realm: Name,
  count: z.int().min(1).max(LIMITS.audienceNodesMax),
  /** All must match. */
  labels: Labels.default({}),
  resources: ResourceLimits,
  /** Only these nodes, by id or name; empty: any. */
  nodes: z.array(z.string()).default([]),
});
export type PlacementRequest = z.infer<typeof PlacementRequest>;

export const PlacementProposal = z.object({
  /** Chosen, best first. */
  nodes: z.array(z.object({ id: NodeId, name: z.string(), reason: z.string() })),
  /** Every other node and why not. */
  refused: z.array(z.object({ id: NodeId, name: z.string(), reason: z.string() })),
});
export type PlacementProposal = z.infer<typeof PlacementProposal>;

/** One run as ledger-independent readers see it; the same shape at coordinator and supervisor. */
export const RunView = z.object({
  run: RunId,
  revision: z.string(),
  envelopeDigest: Sha256Hex,
  node: NodeId,
  realm: Name,
  deployment: Name,
  generation: z.int(),
  mode: ScriptMode,
  state: RunState,
  /** Steps with a recorded outcome. */
  steps: z.int(),
  acceptedAt: z.int(),
  startedAt: z.int().nullable(),
  endedAt: z.int().nullable(),
  /** Why it did not succeed. */
  problem: Problem.nullable(),
  /** True when any step ran on a simulated SAL. */
  simulated: z.boolean(),
  message: z.string(),
  /** Of a run that only waits, held by no process: when it goes on, epoch milliseconds. */
  waitingUntil: z.int().optional(),
  /** When the answering party accepted a cancel of it, epoch milliseconds. */
  cancelRequestedAt: z.int().optional(),
});
export type RunView = z.infer<typeof RunView>;

export const DeploymentView = z.object({
  realm: Name,
  deployment: Name,
  generation: z.int(),
  revision: z.string(),
  mode: ScriptMode,
  state: z.enum(['pending', 'succeeded', 'failed', 'partial']),
  runs: z.array(RunView),
  submittedAt: z.int(),
  message: z.string(),
});
export type DeploymentView = z.infer<typeof DeploymentView>;

export const ResourceView = z.object({
  rid: Rid,
  realm: Name,
  deployment: Name,
  kind: z.string(),
  name: Name,
  /** `provisional` until its run commits; `retained`: a volume kept though no longer declared. */
  status: z.enum(['provisional', 'committed', 'retained', 'removing']),
  /** What the SAL observes now: `running`, `stopped`, `ready`, `missing` … */
  state: z.string(),
  spec: Json,
  specHash: Sha256Hex,
  createdBy: RunId,
  /** `<run>/<step>` that changed it last. */
  lastOp: z.string(),
  addresses: z.array(z.string()),
  simulated: z.boolean(),
  /** What the SAL has to say: path, pid, restarts, exit code, why it is not up. */
  info: Json,
});
export type ResourceView = z.infer<typeof ResourceView>;

export const NodeView = z.object({
  id: NodeId,
  name: Name,
  /** `pending`: waits for admission. `revoked`: its key may do nothing more. */
  state: z.enum(['ready', 'unreachable', 'cordoned', 'pending', 'revoked']),
  labels: Labels,
  realms: z.array(z.string()),
  keyid: KeyId,
  /** Raw Ed25519 key, base64. */
  publicKey: z.string(),
  /**
   * X25519 key that secrets are sealed to, base64, as the ledger has it. To show; whoever seals takes it from
   * the node's own signed enrolment.
   */
  sealKey: z.string(),
  /** The node that has its name now: this one was given a new key and is revoked. */
  replacedBy: NodeId.optional(),
  enrolledAt: z.int(),
  lastReportAt: z.int().nullable(),
  /** Newest authority update the node had when it last reported; absent before its first report. */
  authoritySeq: z.int().optional(),
  bootId: z.string(),
  uptimeMs: z.int(),
  facts: NodeFacts,
  free: ResourceLimits,
});
export type NodeView = z.infer<typeof NodeView>;

export function pageOf<T extends z.ZodType>(item: T) {
  return z.object({ items: z.array(item), nextCursor: z.string().nullable() });
}
export type Page<T> = { items: T[]; nextCursor: string | null };

export const AuthorityHead = z.object({ seq: z.int(), hash: Sha256Hex });
export const AuthorityPage = z.object({ items: z.array(Envelope), head: AuthorityHead });
export type AuthorityPage = z.infer<typeof AuthorityPage>;

/** `GET /v1/genesis`: the first update and its digest, which contexts and join tokens pin. */
export const GenesisAnswer = z.object({ envelope: Envelope, hash: Sha256Hex });
export type GenesisAnswer = z.infer<typeof GenesisAnswer>;

/** Entries of the ledger's log: admissions, enrolments, authority updates, receipts, in order. */
export const LogEntry = z.object({
  index: z.int(),
  at: z.int(),
  kind: z.string(),
  digest: Sha256Hex,
  envelope: Envelope,
  /** Merkle leaf of the entry: of the canonical JSON of `envelope` (`merkle.ts`). */
  leafHash: Sha256Hex,
});
export type LogEntry = z.infer<typeof LogEntry>;
export const LogAppended = z.object({ index: z.int(), digest: Sha256Hex, existing: z.boolean() });
export type LogAppended = z.infer<typeof LogAppended>;

/** `GET /v1/log/key`: what `set-ledger-key` has to name before this ledger's checkpoints count. */
export const LogKey = z.object({ publicKey: PublicKey, keyid: KeyId });
export type LogKey = z.infer<typeof LogKey>;

/** `GET /v1/log/checkpoint`: a C2SP note (`checkpoint.ts`). */
export const LogCheckpoint = z.object({ checkpoint: z.string().max(LIMITS.checkpointCharsMax) });
export type LogCheckpoint = z.infer<typeof LogCheckpoint>;

/** Hashes of a Merkle proof, lowest first. */
const LogProof = z.array(Sha256Hex).max(64);

/** `GET /v1/log/inclusion`: that entry `index` is in the log of `size` entries. */
export const LogInclusion = z.object({
  index: z.int().nonnegative(),
  size: z.int().positive(),
  leafHash: Sha256Hex,
  proof: LogProof,
});
export type LogInclusion = z.infer<typeof LogInclusion>;

/** `GET /v1/log/consistency`: that the log of `to` entries extends the one of `from`. */
export const LogConsistency = z.object({
  from: z.int().positive(),
  to: z.int().positive(),
  proof: LogProof,
});
export type LogConsistency = z.infer<typeof LogConsistency>;

/** Coordinator → node, as SSE `data` on `GET /v1/nodes/:id/inbox`; `id:` is the message's. */
export const InboxMessage = z.discriminatedUnion('type', [
  z.object({
    type: z.literal('submission'),
    id: z.string(),
    run: RunId,
    submission: Submission,
  }),
  z.object({
    type: z.literal('authority'),
    id: z.string(),
    authority: z.array(Envelope),
    /** The newest checkpoint the coordinator has. */
    checkpoint: z.string().optional(),
  }),
  /** A signed cancel; `id` is `cancel-` and its digest. It may overtake what it cancels. */
  z.object({ type: z.literal('cancellation'), id: z.string(), submission: Submission }),
]);
export type InboxMessage = z.infer<typeof InboxMessage>;

/** Node → coordinator, `POST /v1/nodes/:id/outbox`. Every item may arrive twice. */
export const OutboxItem = z.discriminatedUnion('type', [
  /** The node has it in its journal (also when it had it before). */
  z.strictObject({ type: z.literal('accepted'), messageId: z.string(), run: RunId }),
  z.strictObject({
    type: z.literal('refused'),
    messageId: z.string(),
    run: RunId,
    problem: Problem,
  }),
  /** The node has the cancel durably (`problem` null), or refuses it for good. */
  z.strictObject({
    type: z.literal('cancellation'),
    messageId: z.string(),
    problem: Problem.nullable(),
  }),
  z.strictObject({
    type: z.literal('events'),
    run: RunId,
    events: z.array(JournalEvent).min(1).max(500),
  }),
  z.strictObject({ type: z.literal('receipt'), run: RunId, envelope: Envelope }),
  /** A run that reached the node on another path, so that the coordinator can show it. */
  z.strictObject({ type: z.literal('run'), run: RunId, envelope: Envelope }),
]);
export type OutboxItem = z.infer<typeof OutboxItem>;
export const OutboxBatch = z.strictObject({ items: z.array(OutboxItem).min(1).max(200) });
export type OutboxBatch = z.infer<typeof OutboxBatch>;

/** What became of one item of a batch. Everything `ok` is durable at the coordinator. */
export const OutboxResult = z.discriminatedUnion('status', [
  z.object({ status: z.literal('ok') }),
  /** The run is unknown here: send its `run` item, then this one again. */
  z.object({ status: z.literal('want-run') }),
  /** Events are missing before these: send the run's journal again from `seq`. */
  z.object({ status: z.literal('want-events'), seq: z.int() }),
  /** Wrong for good: sending it again changes nothing. */
  z.object({ status: z.literal('refused'), problem: Problem }),
]);
export type OutboxResult = z.infer<typeof OutboxResult>;
/** Answer to an `OutboxBatch`: one result per item, in its order. */
export const OutboxAnswer = z.object({ results: z.array(OutboxResult) });
export type OutboxAnswer = z.infer<typeof OutboxAnswer>;

/** Where one statement stands in the log a checkpoint is over; siblings lowest first (RFC 9162), hex. */
export const EntryProof = z.strictObject({
  /** Of the envelope: what is looked up. Which bytes are in the log the proof says. */
  digest: Sha256Hex,
  index: z.int().nonnegative(),
  proof: LogProof,
});
export type EntryProof = z.infer<typeof EntryProof>;

const proven = {
  genesis: Envelope,
  /** Updates behind genesis, in order. */
  authority: z.array(Envelope),
  admission: Envelope,
  /** With which the node that signed the receipt joined: its first. */
  enrolment: Envelope,
  submission: Envelope,
  journal: z.array(JournalEvent),
  receipt: Envelope,
};

/**
 * Everything needed to check one run offline, down to a pinned genesis. Version 2 also proves that all of
 * it stands in the ledger's log, in which order, and that no authority update of that log is missing.
 */
export const AuditBundle = z.discriminatedUnion('v', [
  z.object({ v: z.literal(1), ...proven }),
  z.strictObject({
    v: z.literal(2),
    ...proven,
    /** Enrolments of the nodes whose place it took by their own signature, oldest first. */
    replaced: z.array(Envelope).max(256),
    /** Signed note of the log head all proofs lead to. */
    checkpoint: z.string(),
    proofs: z.array(EntryProof),
  }),
]);
export type AuditBundle = z.infer<typeof AuditBundle>;
