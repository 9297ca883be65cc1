import { HyphaError, type Json, type Rid } from '@hypha/protocol';
import type { z } from 'zod';
import type { StepContext } from './step-contract.ts';

/** What `parse` of every verb does: the first wrong field is `where`, the message says what it must be. */
export function parseArguments<T>(verb: string, schema: z.ZodType<T>, args: Json): T {
  const parsed = schema.safeParse(args);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  const path = issue?.path.join('.') ?? '';
  const what = path === '' ? 'its argument' : path;
  throw new HyphaError('E_ARGUMENT', `${verb}: ${what}: ${issue?.message ?? 'does not fit'}`, {
    where: { path },
    cause: parsed.error,
  });
}

export type ResourceContext = StepContext & { readonly rid: Rid; readonly name: string };

/** The context of a verb that is called on a resource: the engine always gives it rid and name. */
export function onResource(context: StepContext): ResourceContext {
  const { rid, name } = context;
  if (rid === null || name === null) {
    throw new HyphaError('E_INTERNAL', `step ${context.op} names no resource`);
  }
  return { ...context, rid, name };
}
