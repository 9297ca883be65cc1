import { type JournalEvent, PlanDocument, type PlanStep, planStepOf } from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import { bodiesOf, codeOf, type SimEnd, type SimRun } from './sim-run.ts';
import type { Touch } from './sim-world.ts';

/** A plan that was made, and what the deployment was then. */
export interface MadePlan {
  readonly document: PlanDocument;
  /** From here on what happens to the deployment may make it wrong. */
  readonly sinceMs: number;
  readonly record: ReadonlyMap<string, number>;
}

/** The apply of the script that was planned. */
export interface PlannedApply {
  readonly sent: SimRun;
  readonly events: readonly JournalEvent[];
  readonly end: SimEnd;
  /** Name → size in the committed record before it. */
  readonly record: ReadonlyMap<string, number>;
  /** All that the deployment had before it. */
  readonly names: ReadonlySet<string>;
  /** All that happened to the deployment. */
  readonly touches: readonly Touch[];
}

/** The document that a plan committed. */
export function readPlan(events: readonly JournalEvent[]): PlanDocument | undefined {
  const [commit] = bodiesOf(events, 'committed');
  return commit === undefined ? undefined : PlanDocument.parse(JSON.parse(commit.output));
}

/** Whatever the apply did otherwise than its plan says, though nothing happened in between. */
export function inspectPlan(plan: MadePlan, apply: PlannedApply): string[] {
  const { sent, events, end, touches } = apply;
  const { document, sinceMs } = plan;
  const untilMs = events.at(-1)?.at ?? sinceMs;
  const isOwn = ({ op }: Touch) => op?.startsWith(`${sent.run}/`) === true;
  const between = touches.filter(
    (touch) => touch.atMs >= sinceMs && touch.atMs <= untilMs && !isOwn(touch),
  );
  const wrong: string[] = [];
  const isHeld = sent.expects !== null;
  const isBegun = bodiesOf(events, 'step-intent').length > 0;
  if (isHeld && isBegun && hasMoved(plan, apply.record))
    wrong.push('it began a step, and the record is not that of the plan it was held to');
  if (isHeld && isBegun && document.state === 'partial')
    wrong.push('it began a step, held to a plan that is partial');
  if (between.length > 0 || !isSame(plan.record, apply.record)) return wrong;
  if (codeOf(end) === 'E_PLAN_CHANGED') wrong.push('it ended E_PLAN_CHANGED and nothing moved');
  if (codeOf(end) === 'E_PLAN_PARTIAL' && document.state === 'complete')
    wrong.push('it ended E_PLAN_PARTIAL and its plan is whole');
  return [...wrong, ...compareSteps(document, apply)];
}

function compareSteps(document: PlanDocument, { events, end, names }: PlannedApply): string[] {
  const wrong: string[] = [];
  const planned = new Map(document.steps.map((step) => [step.step, step]));
  const errors = bodiesOf(events, 'step-error').map(({ step }) => step);
  // What a plan cannot know changes everything after it.
  const surprises = errors.filter((step) => planned.get(step)?.action !== 'refuse');
  const last = Math.min(...surprises, Number.POSITIVE_INFINITY);
  const intents = bodiesOf(events, 'step-intent').filter(({ step }) => step < last);
  for (const intent of intents) {
    const plan = planned.get(intent.step);
    if (plan === undefined && document.state === 'partial') continue;
    const made = planStepOf(nodeVerifier, intent);
    if (plan === undefined || textOf(plan) !== textOf(made))
      wrong.push(`planned ${plan && textOf(plan)}, made ${textOf(made)}`);
  }
  const refused = document.steps.filter(({ step, action }) => step < last && action === 'refuse');
  const results = new Set(bodiesOf(events, 'step-result').map(({ step }) => step));
  for (const { step } of refused) if (results.has(step)) wrong.push(`step ${step} is not refused`);
  const [commit] = bodiesOf(events, 'committed');
  if (document.state === 'partial' || end.state !== 'succeeded' || commit === undefined)
    return wrong;
  if (surprises.length > 0) return wrong;
  if (intents.length !== document.steps.length)
    wrong.push(`planned ${document.steps.length} steps, made ${intents.length}`);
  const stays = new Set(commit.desired.map(({ name }) => name as string));
  const removals = new Set(document.removals.map(({ name }) => name as string));
  if (names.difference(stays).symmetricDifference(removals).size > 0)
    wrong.push(`planned to remove [${[...removals]}], removed [${[...names.difference(stays)]}]`);
  return wrong;
}

/** True when another record of what the plan speaks of makes it another plan for sure. */
function hasMoved({ document, record }: MadePlan, now: ReadonlyMap<string, number>): boolean {
  const declared = document.steps.flatMap(({ specHash, name }) =>
    specHash === null ? [] : [name],
  );
  const isOther = (name: string | null) => name !== null && record.get(name) !== now.get(name);
  // What goes, goes in whatever form it has by then.
  const isGone = ({ name }: { readonly name: string }) => record.has(name) !== now.has(name);
  return declared.some(isOther) || document.removals.some(isGone);
}

function isSame(left: ReadonlyMap<string, number>, right: ReadonlyMap<string, number>): boolean {
  return left.size === right.size && [...left].every(([name, size]) => right.get(name) === size);
}

/** What plan and apply have in common of a step. A plan knows of a wait, an apply that nothing is changed by it. */
function textOf({ step, verb, name, action, specHash, argsHash }: PlanStep): string {
  const shown = verb === 'sleep' ? 'wait' : action;
  return JSON.stringify([step, verb, name, shown, specHash, argsHash]);
}
