import type { Json, Rid, VerbClass } from '@hypha/protocol';
import { parseArguments, type SalVerb, type StepContext, type StepPlan } from '@hypha/sal';
import { z } from 'zod';
import { runKept, runUndo } from './kept-run-verbs.ts';
import type { GuestContext } from './saga-context.ts';

/** `rid`: what the step works on where its call names no resource, so that nobody else does meanwhile. */
export interface EnginePlan extends StepPlan {
  readonly rid?: Rid;
}

/** A verb as a step calls it: that of a SAL, or one of the engine's own, which needs no capability. */
export interface StepVerb extends Omit<SalVerb, 'capability'> {
  readonly capability: string | null;
  plan(context: StepContext, args: unknown): Promise<EnginePlan>;
}

/** A step of an engine verb: its call names no resource. */
export interface EngineStep extends StepContext {
  /** What `now()` answered when the script made the call, epoch milliseconds. */
  readonly madeAtMs: number;
}

/** A verb that no SAL has: it works on the run itself. Its `plan` has no effect and its `before` is recorded. */
export interface EngineVerb<Args = unknown> {
  readonly verb: string;
  readonly class: VerbClass;
  /** It only waits for a time of day, for as long as it takes. */
  readonly isWait?: true;
  /** Throws `E_ARGUMENT`. Pure. */
  parse(args: Json): Args;
  plan?(context: GuestContext, step: EngineStep, args: Args): Promise<EnginePlan>;
  apply(context: GuestContext, step: EngineStep, args: Args, before: Json): Promise<Json>;
  /** What a plan answers; absent: it ends there. */
  predict?(): Json;
}

const UNITS_MS = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;
const WAIT_MS_MAX = 366 * UNITS_MS.d;

/** `500ms`, `30s`, `2m`, `1h`, `7d` or milliseconds. */
const Wait = z.union([z.string().max(32), z.number()]).transform((value, context) => {
  const match = typeof value === 'number' ? null : /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/.exec(value);
  const unitMs = UNITS_MS[(match?.[2] ?? 'ms') as keyof typeof UNITS_MS];
  const ms = typeof value === 'number' ? value : Number(match?.[1]) * unitMs;
  if (ms >= 0 && ms <= WAIT_MS_MAX) return Math.round(ms);
  context.addIssue({ code: 'custom', message: 'not a duration: write it like 30s' });
  return z.NEVER;
});

const EpochMs = z.int().nonnegative();

const SleepArgs = z.union([
  z.strictObject({ duration: Wait }),
  /** Up to a time the script was given; `of`: label of the `waitFor` it belongs to. */
  z.strictObject({ untilMs: EpochMs, of: z.string().max(256) }),
]);
const SleepBefore = z.strictObject({ untilMs: EpochMs });

const sleep: EngineVerb<z.infer<typeof SleepArgs>> = {
  verb: 'sleep',
  class: 'read',
  isWait: true,
  parse: (args) => parseArguments('sleep', SleepArgs, args),
  predict: () => null,
  // From what the script was told the time is, so that a crash makes no sleep longer.
  plan: async (_context, { madeAtMs }, args) => {
    const untilMs = 'untilMs' in args ? args.untilMs : madeAtMs + args.duration;
    return { action: 'run', before: { untilMs } };
  },
  apply: async ({ wakeTimes }, { step, signal }, _args, before) => {
    await wakeTimes.wait(step, SleepBefore.parse(before).untilMs, signal);
    return null;
  },
};

const WaitForArgs = z.strictObject({
  label: z.string().min(1).max(256),
  every: Wait.pipe(z.int().min(10)).default(5_000),
  timeout: Wait.default(600_000),
});

/** How the prelude is to poll: it does so itself, because the condition is a function of the script. */
const waitFor: EngineVerb<z.infer<typeof WaitForArgs>> = {
  verb: 'waitFor',
  class: 'read',
  parse: (args) => parseArguments('waitFor', WaitForArgs, args),
  apply: async (_context, { madeAtMs }, { every, timeout }) => {
    return { everyMs: every, untilMs: madeAtMs + timeout };
  },
};

/** Lets the table hold verbs of different arguments without `any`. */
export function defineEngineVerb<Args>(verb: EngineVerb<Args>): EngineVerb {
  // The engine only ever passes back what this verb's own `parse` returned.
  return verb as unknown as EngineVerb;
}

const ENGINE_VERBS = new Map(
  [
    defineEngineVerb(sleep),
    defineEngineVerb(waitFor),
    defineEngineVerb(runKept),
    defineEngineVerb(runUndo),
  ].map((verb) => [verb.verb, verb] as const),
);

/** True for an engine verb that only waits for a time of day. */
export function isWaitVerb(name: string): boolean {
  return ENGINE_VERBS.get(name)?.isWait === true;
}

/** The engine's own verb of this name, for a call made at this time of the script. */
export function findEngineVerb(
  context: GuestContext,
  name: string,
  madeAtMs: number,
): StepVerb | undefined {
  const own = ENGINE_VERBS.get(name);
  if (own === undefined) return undefined;
  const { verb, plan, predict } = own;
  return {
    verb,
    class: own.class,
    capability: null,
    kind: null,
    ...(own.isWait === true ? { deadlineMs: () => Number.POSITIVE_INFINITY } : {}),
    parse: (args) => own.parse(args),
    plan: async (step, args) =>
      (await plan?.(context, { ...step, madeAtMs }, args)) ?? { action: 'run', before: null },
    ...(predict === undefined ? {} : { predict: async () => predict() }),
    apply: (step, args, before) => own.apply(context, { ...step, madeAtMs }, args, before),
  };
}
