import {
  DATA_KINDS,
  type DesiredResource,
  type GuestProgram,
  type PlanDocument,
  type PlanRemoval,
  planHash,
} from '@hypha/protocol';
import { listCopedWith } from './coped-with.ts';
import { PlanSteps } from './plan-steps.ts';
import type { GuestContext, SagaContext } from './saga-context.ts';
import { PlanEnd } from './saga-error.ts';
import { runScript, type ScriptEnd, type ScriptSources } from './script-run.ts';

type Predicted = Pick<PlanSteps, 'steps' | 'declared'>;

export type Planned =
  | { readonly ended: true; readonly plan: PlanDocument }
  | Extract<ScriptEnd, { readonly ended: false }>;

/**
 * Runs the script against predictions: nothing is changed (design §11). Throws `RunFailure` when the script fails
 * on them. A call that only a real run can answer ends the plan as `partial`.
 */
export async function planScript(
  context: SagaContext,
  openGuest: ScriptSources['openGuest'],
  program: GuestProgram,
): Promise<Planned> {
  // Of the newest guest
  let planned: Predicted = { steps: [], declared: new Set() };
  const openRunner = (ofGuest: GuestContext) => {
    const steps = new PlanSteps(ofGuest);
    planned = steps;
    return steps;
  };
  try {
    const end = await runScript(context, { openGuest, openRunner }, program);
    return end.ended ? { ended: true, plan: documentOf(context, planned) } : end;
  } catch (error) {
    if (!(error instanceof PlanEnd)) throw error;
    return { ended: true, plan: documentOf(context, planned, error.reason) };
  }
}

function documentOf(context: SagaContext, planned: Predicted, reason?: string): PlanDocument {
  const { run, node, payload, committed, remains = [] } = context.grant;
  const { realm, deployment, generation, script, input, deleteData } = payload;
  const isPartial = reason !== undefined;
  const state = isPartial ? 'partial' : 'complete';
  const steps = [...planned.steps];
  const held = new Map([...remains, ...committed].map((resource) => [resource.rid, resource]));
  for (const rid of planned.declared) held.delete(rid);
  for (const { rid } of listCopedWith(context)) held.delete(rid);
  // What the rest of the script would declare is not known.
  const undeclared = isPartial ? [] : [...held.values()];
  const removals = undeclared.map((resource) => removalOf(resource, deleteData)).sort(byPath);
  const predicted = { state, steps, removals } as const;
  const subject = {
    ...{ node: node.id, realm, deployment, input, deleteData },
    script: script?.sha256 ?? '',
  };
  return {
    v: 1,
    ...{ run, node: node.id, realm, deployment, generation },
    ...predicted,
    ...(isPartial ? { reason } : {}),
    hash: planHash(context.verifier, subject, predicted),
  };
}

function removalOf({ kind, name }: DesiredResource, deleteData: readonly string[]): PlanRemoval {
  if (!DATA_KINDS.has(kind)) return { kind, name, action: 'remove' };
  return { kind, name, action: deleteData.includes(name) ? 'delete-data' : 'retain' };
}

function byPath(left: PlanRemoval, right: PlanRemoval): number {
  return `${left.kind}/${left.name}` < `${right.kind}/${right.name}` ? -1 : 1;
}
