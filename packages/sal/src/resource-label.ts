/** What every made thing carries, so that a reader can tell whose it is without any database (S5). */
import { createHash } from 'node:crypto';
import { canonicalJson, type Json, Name, Rid, Sha256Hex } from '@hypha/protocol';
import { z } from 'zod';
import type { ResourceRecord } from './resource-kind.ts';
import type { StepContext } from './step-contract.ts';

export const ResourceLabel = z.strictObject({
  v: z.literal(1),
  rid: Rid,
  kind: z.string(),
  realm: Name,
  deployment: Name,
  name: Name,
  /** `<run>/<step>` that made it, or `reconciler`: undo deletes only what its own step made. */
  createdBy: z.string(),
  /** `<run>/<step>` that changed it last. */
  lastOp: z.string(),
  specHash: Sha256Hex,
});
export type ResourceLabel = z.infer<typeof ResourceLabel>;

/** `createdBy` of what the reconciler brought back. */
export const RECONCILER = 'reconciler';

/** Hex SHA-256 of the spec's canonical JSON. */
export function specHashOf(spec: Json): Sha256Hex {
  return createHash('sha256').update(canonicalJson(spec)).digest('hex');
}

/** `default/web/volume/data`: how people see whose it is. */
export function labelText(label: ResourceLabel): string {
  return `${label.realm}/${label.deployment}/${label.kind}/${label.name}`;
}

/** The label of a resource that a step makes. */
export function labelForStep(
  context: StepContext & { rid: Rid; name: string },
  kind: string,
  spec: Json,
): ResourceLabel {
  return {
    v: 1,
    rid: context.rid,
    kind,
    realm: context.realm,
    deployment: context.deployment,
    name: context.name,
    createdBy: context.op,
    lastOp: context.op,
    specHash: specHashOf(spec),
  };
}

/** The label of a resource that the reconciler brings back. */
export function labelForRecord(record: ResourceRecord): ResourceLabel {
  return {
    v: 1,
    rid: record.rid,
    kind: record.kind,
    realm: record.realm,
    deployment: record.deployment,
    name: record.name,
    createdBy: record.madeBy?.createdBy ?? RECONCILER,
    lastOp: record.madeBy?.lastOp ?? RECONCILER,
    specHash: record.specHash,
  };
}
