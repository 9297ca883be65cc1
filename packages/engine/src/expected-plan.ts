import {
  canonicalJson,
  type GuestProgram,
  HyphaError,
  type PlanDocument,
  type PlanRemoval,
  type PlanStep,
} from '@hypha/protocol';
import { ENGINE_LIMITS } from './engine-limits.ts';
import { JournalWriter } from './journal-writer.ts';
import { jsonBytes } from './json-bounds.ts';
import { planScript } from './plan-run.ts';
import { RunRecord } from './run-record.ts';
import type { SagaContext } from './saga-context.ts';
import { RunFailure } from './saga-error.ts';
import type { ScriptEnd, ScriptSources } from './script-run.ts';

/** One thing that is planned otherwise now. `step` is absent for what the deployment would hold no longer. */
interface PlanDifference {
  readonly step?: number;
  readonly was: PlanStep | PlanRemoval | null;
  readonly now: PlanStep | PlanRemoval | null;
}

export type Expected = { readonly ended: true } | Extract<ScriptEnd, { readonly ended: false }>;

/**
 * Holds an apply to the plan it was signed with (design §11): plans again in a guest of its own, and leaves no
 * trace of that in the journal. Once a step of the run is on record the world is the run's own, and the question
 * was answered. Throws `RunFailure` with `E_PLAN_PARTIAL` or `E_PLAN_CHANGED`, or as the script fails.
 */
export async function holdToPlan(
  context: SagaContext,
  openGuest: ScriptSources['openGuest'],
  program: GuestProgram,
): Promise<Expected> {
  const { payload, node } = context.grant;
  const expected = payload.expect?.[node.id];
  if (expected === undefined || context.record.intents.size > 0) return { ended: true };
  const unrecorded = withoutJournal(context);
  const planned = await planScript(unrecorded, openGuest, program).finally(() =>
    unrecorded.writer.close(),
  );
  if (!planned.ended) return planned;
  const { plan } = planned;
  if (plan.state === 'partial') {
    const reason = plan.reason ?? 'it is partial';
    const what = `a plan of ${payload.realm}/${payload.deployment} is expected and cannot be made`;
    throw new RunFailure(new HyphaError('E_PLAN_PARTIAL', `${what}: ${reason}`));
  }
  if (plan.hash !== expected) throw new RunFailure(planChanged(context, expected, plan));
  return { ended: true };
}

/** The same run with a record that nobody keeps. */
function withoutJournal(context: SagaContext): SagaContext {
  const record = new RunRecord([]);
  const { started } = context.record;
  if (started !== undefined) record.add(started);
  const journal = { append: async () => undefined };
  return { ...context, record, writer: new JournalWriter(journal, record, context.clock) };
}

function planChanged(context: SagaContext, expected: string, plan: PlanDocument): HyphaError {
  const { payload, node, expectedPlan } = context.grant;
  const place = `${payload.realm}/${payload.deployment} on ${node.name}`;
  const known = expectedPlan?.hash === expected ? expectedPlan : null;
  const differences = known === null ? [] : listDifferences(known, plan);
  const what =
    known === null ? 'the plan it was signed with is not known here' : textOf(differences);
  return new HyphaError('E_PLAN_CHANGED', `${place} is not as it was planned: ${what}`, {
    details: { expected, found: plan.hash, difference: boundedDifferences(differences) },
  });
}

function listDifferences(was: PlanDocument, now: PlanDocument): PlanDifference[] {
  const steps = pairsOf(was.steps, now.steps, ({ step }) => String(step));
  const removals = pairsOf(was.removals, now.removals, ({ kind, name }) => `${kind}/${name}`);
  return [
    ...steps.map(([before, after]) => {
      const step = before?.step ?? after?.step ?? 0;
      return { step, was: before, now: after };
    }),
    ...removals.map(([before, after]) => ({ was: before, now: after })),
  ];
}

/** Members of both lists by key, where they are not the same. */
function pairsOf<T extends object>(
  was: readonly T[],
  now: readonly T[],
  keyOf: (item: T) => string,
): [T | null, T | null][] {
  const before = new Map(was.map((item) => [keyOf(item), item]));
  const after = new Map(now.map((item) => [keyOf(item), item]));
  const keys = new Set([...before.keys(), ...after.keys()]);
  return [...keys]
    .map((key): [T | null, T | null] => [before.get(key) ?? null, after.get(key) ?? null])
    .filter(([left, right]) => canonicalJson(left) !== canonicalJson(right));
}

function textOf(differences: readonly PlanDifference[]): string {
  const [first] = differences;
  // The hash covers nothing else that can differ.
  if (first === undefined) return 'script, input or deleteData are others';
  const more = differences.length - 1;
  const rest = more === 0 ? '' : `, and ${more} more`;
  const [was, is] = sideTexts(first);
  return `${labelOf(first)} was ${was}, is ${is}${rest}`;
}

/** Both sides; where they would read the same, also in what they are not. */
function sideTexts({ was, now }: PlanDifference): [string, string] {
  const [before, after] = [actionOf(was), actionOf(now)];
  if (was === null || now === null || before !== after) return [before, after];
  if (nameOf(was) !== nameOf(now)) return [`${before} of ${nameOf(was)}`, after];
  return [before, `${after} ${contrastOf(was, now)}`];
}

function contrastOf(was: PlanStep | PlanRemoval, now: PlanStep | PlanRemoval): string {
  if (!('verb' in was && 'verb' in now) || was.verb !== now.verb) return 'by another call';
  if (was.specHash !== now.specHash) return 'with another spec';
  return was.argsHash === now.argsHash ? 'of what had another spec' : 'with other arguments';
}

function labelOf({ step, was, now }: PlanDifference): string {
  const name = nameOf(now ?? was);
  return step === undefined ? name : `step ${step}${name === '' ? '' : `, ${name}`}`;
}

function nameOf(planned: PlanStep | PlanRemoval | null): string {
  return [planned?.kind, planned?.name].filter((part) => typeof part === 'string').join(' ');
}

function actionOf(planned: PlanStep | PlanRemoval | null): string {
  if (planned === null) return 'not planned';
  const differs = 'differs' in planned ? planned.differs : [];
  return differs.length === 0 ? planned.action : `${planned.action} (${differs.join(', ')})`;
}

/** Details that are too long would be left out whole. */
function boundedDifferences(differences: readonly PlanDifference[]): readonly PlanDifference[] {
  let bytes = 0;
  const bytesMax = ENGINE_LIMITS.detailsBytesMax / 2;
  return differences.filter((difference) => {
    bytes += jsonBytes(difference);
    return bytes <= bytesMax;
  });
}
