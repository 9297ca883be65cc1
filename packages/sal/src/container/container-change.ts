/**
 * What another spec means for a container that exists: the same for real and simulated ones. Pure.
 *
 * C1  Memory, cpus, pids and the restart policy change in place, on the running container. Every other change
 *     is a replacement.
 * C2  What a change takes away, it takes after the commit (design §10): until then the larger limit holds.
 */
import { createHash } from 'node:crypto';
import { canonicalJson, Json } from '@hypha/protocol';
import { z } from 'zod';
import { specHashOf } from '../resource-label.ts';
import { ContainerSpec } from '../specs.ts';
import type { StepContext, StepPlan } from '../step-contract.ts';

/** What the kernel holds a container to. */
export const Allowance = z.strictObject({
  memory: z.int().positive(),
  cpus: z.number().positive(),
  pids: z.int().positive(),
});
export type Allowance = Readonly<z.infer<typeof Allowance>>;

/** The fields of a spec that change in place. */
export const Adjustable = Allowance.extend({ restart: ContainerSpec.shape.restart });
export type Adjustable = Readonly<z.infer<typeof Adjustable>>;

const ADJUSTABLE: ReadonlySet<string> = new Set(Object.keys(Adjustable.shape));
/** Fields of a spec whose entries are named one by one. */
const GROUPS: ReadonlySet<string> = new Set(['env', 'mounts', 'files']);
const NO_GROUPS: ReadonlySet<string> = new Set();

/** What a made container keeps of its spec: nothing that a secret could be read from. */
export const DeclaredFields = z.strictObject({
  /** `memory`, `env.NAME`, `mounts./path`, `files./path` … → hash of the value. */
  fields: z.record(z.string(), z.string()),
  /** Null where an older version made it: it is then replaced, whatever changes. */
  adjustable: Adjustable.nullable().default(null),
  /** In force instead, until the commit of the run that takes from it. */
  held: Allowance.nullable().default(null),
});
export type DeclaredFields = Readonly<z.infer<typeof DeclaredFields>>;

/** Of a container that an older version made without a word about its fields. */
export const UNKNOWN_FIELDS: DeclaredFields = { fields: {}, adjustable: null, held: null };

export function declaredFields(spec: ContainerSpec): DeclaredFields {
  return { fields: hashFields(spec), adjustable: adjustableOf(spec), held: null };
}

export function adjustableOf({ memory, cpus, pids, restart }: Adjustable): Adjustable {
  return { memory, cpus, pids, restart };
}

/** What `plan` says about a container of `declared` once `spec` is wanted of it. */
export function changeOf(
  declared: DeclaredFields,
  spec: ContainerSpec,
): { readonly action: 'update' | 'replace'; readonly differs: readonly string[] } {
  // An older version knew nothing finer than whole groups.
  const groups = declared.adjustable === null ? NO_GROUPS : GROUPS;
  const differs = differingFields(declared.fields, hashFields(spec, groups));
  const isInPlace = declared.adjustable !== null && differs.every((field) => ADJUSTABLE.has(field));
  return { action: isInPlace ? 'update' : 'replace', differs };
}

/** A container that an earlier step of the plan would have made or changed; undefined: none would. */
export function planOnPlanned(
  { planned, rid }: Pick<StepContext, 'planned' | 'rid'>,
  spec: ContainerSpec,
): Omit<StepPlan, 'before'> | undefined {
  const earlier = rid === null ? undefined : planned?.find(rid);
  if (earlier === undefined) return undefined;
  if (earlier.specHash === specHashOf(Json.parse(spec))) return { action: 'no-op' };
  return changeOf(declaredFields(ContainerSpec.parse(earlier.spec)), spec);
}

/** The fields as `spec` has them, with nothing taken away yet (C2). */
export function adjustedFields(declared: DeclaredFields, spec: ContainerSpec): DeclaredFields {
  const next = declaredFields(spec);
  const current = allowanceOf(declared) ?? spec;
  const held = {
    memory: Math.max(current.memory, spec.memory),
    cpus: Math.max(current.cpus, spec.cpus),
    pids: Math.max(current.pids, spec.pids),
  };
  const isLess = held.memory > spec.memory || held.cpus > spec.cpus || held.pids > spec.pids;
  return isLess ? { ...next, held } : next;
}

/** What is in force; null where an older version made it. */
export function allowanceOf({ held, adjustable }: DeclaredFields): Allowance | null {
  if (held !== null || adjustable === null) return held;
  const { memory, cpus, pids } = adjustable;
  return { memory, cpus, pids };
}

function hashFields(spec: ContainerSpec, groups = GROUPS): Readonly<Record<string, string>> {
  const entries = Object.entries(spec).flatMap(([field, value]): [string, Json][] => {
    // A parsed spec is JSON, but for what is not there.
    if (!groups.has(field)) return value === undefined ? [] : [[field, value as Json]];
    const group = value as Readonly<Record<string, Json>>;
    return Object.entries(group).map(([name, item]) => [`${field}.${name}`, item]);
  });
  return Object.fromEntries(entries.map(([field, value]) => [field, hashOf(value)]));
}

function differingFields(
  past: Readonly<Record<string, string>>,
  next: Readonly<Record<string, string>>,
): readonly string[] {
  const fields = new Set([...Object.keys(past), ...Object.keys(next)]);
  return [...fields].filter((field) => past[field] !== next[field]).toSorted();
}

function hashOf(value: Json): string {
  return createHash('sha256').update(canonicalJson(value)).digest('hex').slice(0, 16);
}
