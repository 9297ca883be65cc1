import { z } from 'zod';
import { NodeFacts } from './node-payloads.ts';

/** One thing that keeps harm on a node within bounds, and whether it is there. */
export const Protection = z.strictObject({
  /** `redis users`, `sandbox`, `core dumps`, … */
  what: z.string().max(64),
  ok: z.boolean(),
  /** How it is; when not `ok`, also what that allows. */
  detail: z.string().max(1024),
  /** What to do about it. */
  hint: z.string().max(1024).optional(),
});
export type Protection = z.infer<typeof Protection>;

/** Answer of a node's `GET /v1/facts`. Protections are told by the node alone, and never in a report. */
export const NodeFactsView = NodeFacts.extend({ protection: z.array(Protection).max(32) });
export type NodeFactsView = z.infer<typeof NodeFactsView>;
