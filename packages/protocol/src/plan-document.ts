import { z } from 'zod';
import { canonicalBytes } from './canonical-json.ts';
import type { Verifier } from './crypto-port.ts';
import { hex } from './encoding.ts';
import { Name, NodeId, RunId, Sha256Hex } from './ids.ts';
import type { Json } from './json-value.ts';

/** What one call of the script would do. */
export const PlanStep = z.strictObject({
  step: z.int().min(1),
  verb: z.string(),
  kind: z.string().nullable(),
  name: z.string().nullable(),
  /** `create`, `update`, `replace`, `no-op`, `run`; `read` for what only looks. */
  action: z.string(),
  /** Fields that an update or replace changes. */
  differs: z.array(z.string()),
  /** Of the resource as it would be; null for calls that declare none. */
  specHash: Sha256Hex.nullable(),
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
  hash: Sha256Hex,
});
export type PlanDocument = z.infer<typeof PlanDocument>;

/** What a plan is of. The generation is not part of it: the apply that expects it is signed later. */
export interface PlanSubject {
  readonly node: string;
  readonly realm: string;
  readonly deployment: string;
  /** Hex SHA-256 of the script's source. */
  readonly script: string;
  readonly input: Json;
}

/** Hex SHA-256 over canonical JSON of script, input and predicted changes (design §11). */
export function planHash(
  verifier: Verifier,
  subject: PlanSubject,
  predicted: Pick<PlanDocument, 'state' | 'steps' | 'removals'>,
): string {
  const { node, realm, deployment, script, input } = subject;
  const { state, steps, removals } = predicted;
  const parts = { node, realm, deployment, script, input, state, steps, removals };
  return hex(verifier.sha256(canonicalBytes(parts)));
}
