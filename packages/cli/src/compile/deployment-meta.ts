import { HyphaError, type Json, LIMITS, Name } from '@hypha/protocol';
import { z } from 'zod';
import { InputSchema } from './script-input.ts';

/** `export const deployment`: data only. Flags override name and realm. */
const DeploymentMeta = z.strictObject({
  name: Name.optional(),
  realm: Name.optional(),
  input: InputSchema.default({}),
  secrets: z
    .array(Name)
    .max(LIMITS.secretsMax)
    .refine((names) => new Set(names).size === names.length, 'names one twice')
    .default([]),
});
export type DeploymentMeta = z.infer<typeof DeploymentMeta>;

/** Throws `E_ARGUMENT` that names the wrong member. @param value undefined: the script has none */
export function parseDeploymentMeta(value: Json | undefined): DeploymentMeta {
  const parsed = DeploymentMeta.safeParse(value ?? {});
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  const path = ['deployment', ...(issue?.path ?? [])].join('.');
  throw new HyphaError('E_ARGUMENT', `${path}: ${issue?.message ?? 'does not fit'}`, {
    where: { path },
    hint: "export const deployment = { name: 'web', input: { image: 'image' } }",
    cause: parsed.error,
  });
}
