import { z } from 'zod';
import { canonicalBytes, canonicalJson } from './canonical-json.ts';
import type { Verifier } from './crypto-port.ts';
import { hex, utf8 } from './encoding.ts';
import { Name, NodeId, Rid, RunId, Sha256Hex } from './ids.ts';
import { Json } from './json-value.ts';
import { ScriptMode } from './script-payload.ts';

/** An outcome's error as the script sees it and the journal keeps it. */
export const StepError = z.strictObject({
  code: z.string(),
  message: z.string(),
  hint: z.string().optional(),
});
export type StepError = z.infer<typeof StepError>;

export const VerbClass = z.enum(['ensure', 'transition', 'once', 'read']);
export type VerbClass = z.infer<typeof VerbClass>;

/** A resource as a run declared it: what the desired record holds after commit. */
export const DesiredResource = z.strictObject({
  rid: Rid,
  kind: z.string(),
  name: Name,
  /** Parsed spec with defaults filled in, references resolved to `{ $rid }`. */
  spec: Json,
  /** Hex SHA-256 of the spec's canonical JSON. */
  specHash: Sha256Hex,
});
export type DesiredResource = z.infer<typeof DesiredResource>;

/** Kinds whose removal loses what cannot be made again: only a signed `deleteData` removes them. */
export const DATA_KINDS: ReadonlySet<string> = new Set(['volume']);

export const Leftover = z.strictObject({
  rid: Rid,
  kind: z.string(),
  name: z.string(),
  reason: z.string(),
});
export type Leftover = z.infer<typeof Leftover>;

const StepNumber = z.int().min(1);

/**
 * The bodies of journal events, by type (design §10). Append-only; a field is added only with a new
 * journal version. Recorded outcomes are what replay delivers, so their meaning never changes.
 */
export const JournalBody = z.discriminatedUnion('type', [
  z.strictObject({
    type: z.literal('accepted'),
    envelopeDigest: Sha256Hex,
    node: NodeId,
    realm: Name,
    deployment: Name,
    generation: z.int(),
    mode: ScriptMode,
    /** Who signed. */
    keyids: z.array(z.string()),
    authoritySeq: z.int(),
  }),
  z.strictObject({
    type: z.literal('started'),
    runner: z.string(),
    bootId: z.string(),
    /** Engine and SAL ABI the run is pinned to. */
    abi: z.string(),
    /** Wall clock given to the script as `now()` at its start, epoch milliseconds. */
    nowMs: z.int(),
  }),
  z.strictObject({
    type: z.literal('step-intent'),
    step: StepNumber,
    verb: z.string(),
    class: VerbClass,
    /** Arguments as the script gave them: compared on replay. */
    args: Json,
    rid: Rid.nullable(),
    kind: z.string().nullable(),
    name: z.string().nullable(),
    /** What the step will do: create, update, replace, no-op … Shown to people. */
    action: z.string(),
    /** What was there before, as the SAL read it: all that undo needs. */
    before: Json,
    /** For `ensure`: the resource as it will be, provisional until the run commits. */
    desired: DesiredResource.nullable(),
    /** Fields that an update or replace changes, for people. */
    differs: z.array(z.string()).optional(),
    /** Fetching what the step needs took so long, milliseconds: it does not count against `wallMs`. */
    preparedMs: z.int().nonnegative().optional(),
  }),
  z.strictObject({
    type: z.literal('step-result'),
    step: StepNumber,
    result: Json,
    durationMs: z.int(),
    /** What `now()` answers from this outcome on, epoch milliseconds. Absent: as before it. */
    nowMs: z.int().nonnegative().optional(),
  }),
  z.strictObject({
    type: z.literal('step-error'),
    step: StepNumber,
    error: StepError,
    durationMs: z.int(),
    nowMs: z.int().nonnegative().optional(),
  }),
  z.strictObject({
    type: z.literal('committed'),
    /** JSON text of the returned value. */
    output: z.string(),
    outputSha256: Sha256Hex,
    desired: z.array(DesiredResource),
  }),
  z.strictObject({
    type: z.literal('undo-intent'),
    step: StepNumber,
    /** On the first: the problem document the run ends with, so that an undo taken over keeps it. */
    problem: Json.optional(),
  }),
  z.strictObject({
    type: z.literal('undo-result'),
    step: StepNumber,
    /** Null when undone; otherwise why something is left over. */
    leftover: z.string().nullable(),
  }),
  z.strictObject({
    type: z.literal('log'),
    /** Ordinal among the run's log lines: replay skips those already recorded. */
    line: z.int().min(1),
    message: z.string(),
    fields: Json,
  }),
  z.strictObject({
    type: z.literal('finished'),
    state: z.enum(['succeeded', 'failed', 'cancelled', 'rejected']),
    /** The problem document of a run that did not succeed. */
    problem: Json.nullable(),
    undone: z.int(),
    leftovers: z.array(Leftover),
  }),
]);
export type JournalBody = z.infer<typeof JournalBody>;
export type JournalType = JournalBody['type'];
export type BodyOf<T extends JournalType> = Extract<JournalBody, { type: T }>;

/**
 * One durable event. `hash` is hex SHA-256 over the canonical JSON of the event without `hash`; `prev`
 * is the hash of the event before it (64 zeros for the first), so a journal proves itself whole.
 */
export const JournalEvent = z.strictObject({
  run: RunId,
  /** From 1, without gaps. */
  seq: z.int().min(1),
  /** Which runner owned the run; 0 for the supervisor itself. */
  epoch: z.int().nonnegative(),
  /** Wall clock of the node, epoch milliseconds. */
  at: z.int().nonnegative(),
  prev: Sha256Hex,
  body: JournalBody,
  hash: Sha256Hex,
});
export type JournalEvent = z.infer<typeof JournalEvent>;

export const GENESIS_HASH = '0'.repeat(64);

export function eventHash(verifier: Verifier, event: Omit<JournalEvent, 'hash'>): string {
  const { run, seq, epoch, at, prev, body } = event;
  return hex(verifier.sha256(canonicalBytes({ run, seq, epoch, at, prev, body })));
}

/** The event with its hash, and its canonical JSON: what is stored and served. Serialised once for both. */
export function sealEvent(
  verifier: Verifier,
  unsigned: Omit<JournalEvent, 'hash'>,
): { readonly event: JournalEvent; readonly text: string } {
  const { run, seq, epoch, at, prev, body } = unsigned;
  // Members in the order of their names, as canonical JSON has them: `hash` goes between.
  const before = `{"at":${at},"body":${canonicalJson(body)},"epoch":${epoch},`;
  const after = `"prev":${JSON.stringify(prev)},"run":${JSON.stringify(run)},"seq":${seq}}`;
  const hash = hex(verifier.sha256(utf8(before + after)));
  const event = { run, seq, epoch, at, prev, body, hash };
  return { event, text: `${before}"hash":"${hash}",${after}` };
}

/** The seq of the first event that does not hold, or null when the whole chain does. */
export function firstBrokenEvent(
  verifier: Verifier,
  events: readonly JournalEvent[],
): number | null {
  let prev = GENESIS_HASH;
  for (const [index, event] of events.entries()) {
    const holds =
      event.seq === index + 1 && event.prev === prev && eventHash(verifier, event) === event.hash;
    if (!holds) return event.seq;
    prev = event.hash;
  }
  return null;
}
