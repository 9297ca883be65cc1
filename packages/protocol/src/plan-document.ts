import { z } from 'zod';
import { canonicalBytes } from './canonical-json.ts';
import type { Verifier } from './crypto-port.ts';
import { hex } from './encoding.ts';
import { Name, NodeId, RunId, Sha256Hex } from './ids.ts';
import type { BodyOf } from './journal-event.ts';
import type { Json } from './json-value.ts';

/** What one call of the script would do. */
export const PlanStep = z.strictObject({
  step: z.int().min(1),
  verb: z.string(),
  kind: z.string().nullable(),
  name: z.string().nullable(),
  /**
   * `create`, `update`, `replace`, `no-op`, `run`; `read` for what only looks, `wait` for what only waits, `refuse`
   * for a call that would fail.
   */
  action: z.string(),
  /** Fields that an update or replace changes. */
  differs: z.array(z.string()),
  /** Of the resource as it would be; null for calls that declare none. */
  specHash: Sha256Hex.nullable(),
  /** Of the resource as the committed record has it; absent when it has none. */
  specHashBefore: Sha256Hex.optional(),
  /** Of the arguments of a call that changes something without declaring it. */
  argsHash: Sha256Hex.optional(),
});
export type PlanStep = z.infer<typeof PlanStep>;

/** What the deployment would hold no longer. */
export const PlanRemoval = z.strictObject({
  kind: z.string(),
  name: Name,
  /** `retain`: data that stays, although no longer declared (design §10). */
  action: z.enum(['remove', 'retain', 'delete-data']),
});
export type PlanRemoval = z.infer<typeof PlanRemoval>;

/** `GET /v1/runs/:id/plan`; of a plan run also its output. Source: design §11. */
export const PlanDocument = z.strictObject({
  v: z.literal(1),
  run: RunId,
  node: NodeId,
  realm: Name,
  deployment: Name,
  generation: z.int(),
  /** `partial`: the script calls what only a real run can answer, so there it ends. */
  state: z.enum(['complete', 'partial']),
  /** Of a partial plan: which call. */
  reason: z.string().optional(),
  steps: z.array(PlanStep),
  removals: z.array(PlanRemoval),
  /** What `expect` is signed with; absent in the view of a run that is no plan. */
  hash: Sha256Hex.optional(),
});
export type PlanDocument = z.infer<typeof PlanDocument>;

type PlannedIntent = Pick<
  BodyOf<'step-intent'>,
  'step' | 'verb' | 'class' | 'kind' | 'name' | 'args' | 'action' | 'differs' | 'desired'
>;

/**
 * A step's intent as a plan shows it.
 * @param specHashBefore of the same resource in the committed record that the run started from
 */
export function planStepOf(
  verifier: Verifier,
  intent: PlannedIntent,
  specHashBefore?: string,
): PlanStep {
  const { step, verb, kind, name, action, differs, desired } = intent;
  const isRead = intent.class === 'read';
  const isUndeclared = intent.class === 'transition' || intent.class === 'once';
  return {
    ...{ step, verb, kind, name },
    action: isRead && action === 'run' ? 'read' : action,
    differs: [...(differs ?? [])],
    specHash: desired?.specHash ?? null,
    ...(specHashBefore === undefined ? {} : { specHashBefore }),
    ...(isUndeclared ? { argsHash: hex(verifier.sha256(canonicalBytes(intent.args))) } : {}),
  };
}

/**
 * What a plan is of. The generation is not part of it: the apply that expects it is signed later, under a higher
 * one. Nor are limits: a plan that they would stop says so.
 */
export interface PlanSubject {
  readonly node: string;
  readonly realm: string;
  readonly deployment: string;
  /** Hex SHA-256 of the script's source. */
  readonly script: string;
  readonly input: Json;
  /** Volumes whose data may go, declared or only retained. */
  readonly deleteData: readonly string[];
}

/** Hex SHA-256 over canonical JSON of script, input, place and predicted changes (design §11). */
export function planHash(
  verifier: Verifier,
  subject: PlanSubject,
  predicted: Pick<PlanDocument, 'state' | 'steps' | 'removals'>,
): string {
  const { node, realm, deployment, script, input } = subject;
  const deleteData = [...subject.deleteData].sort();
  const { state, steps, removals } = predicted;
  const parts = { node, realm, deployment, script, input, deleteData, state, steps, removals };
  return hex(verifier.sha256(canonicalBytes(parts)));
}
