import { HyphaError, type Json, type PlanStep, planStepOf, type Rid } from '@hypha/protocol';
import type { PlannedStep } from '@hypha/sal';
import { PredictedWorld } from './predicted-world.ts';
import { ResourceAccount } from './resource-account.ts';
import type { StepIntent, StepOutcome } from './run-record.ts';
import type { GuestContext } from './saga-context.ts';
import { PlanEnd, RunFailure } from './saga-error.ts';
import { withSecrets } from './secret-handles.ts';
import { checkResult, runStep, type StepMaking } from './step.ts';
import { parseCall, type StepCall } from './step-call.ts';
import { attempt } from './step-part.ts';
import type { ScriptCall, StepRunner } from './step-runner.ts';

/**
 * Steps that are predicted and have no effect: one of these for every guest. Each is admitted and refused as in
 * an apply, and planned in the world that those before it would leave. Recorded as reads, so that a plan
 * that was cut goes on where it was.
 */
export class PlanSteps implements StepRunner {
  /** In the order they were made, so that the same world gives the same plan. */
  readonly concurrencyMax = 1;
  readonly #context: GuestContext;
  readonly #making: StepMaking;
  readonly #world = new PredictedWorld();
  readonly #steps: PlanStep[] = [];
  readonly #declared = new Set<Rid>();
  // rid → hash of its spec in the committed record
  readonly #committed: ReadonlyMap<Rid, string>;

  constructor(context: GuestContext) {
    const { committed, payload } = context.grant;
    this.#context = context;
    this.#committed = new Map(committed.map(({ rid, specHash }) => [rid, specHash]));
    this.#making = {
      account: new ResourceAccount(payload.limits.resources),
      isDeclared: (rid) => this.#declared.has(rid) || this.#committed.has(rid),
      execute: (call) => this.#predict(call),
    };
  }

  /** Every step so far, in order. */
  get steps(): readonly PlanStep[] {
    return this.#steps;
  }

  /** What the deployment would hold if the script ended here. */
  get declared(): ReadonlySet<Rid> {
    return this.#declared;
  }

  /** Throws `PlanEnd` at a call that only a real run can answer. */
  async run(call: ScriptCall): Promise<StepOutcome> {
    const outcome = await runStep(this.#context, this.#making, call);
    this.replay(call, outcome);
    return outcome;
  }

  replay(call: ScriptCall, outcome: StepOutcome): void {
    const { record, verifier } = this.#context;
    const intent = record.intents.get(call.call);
    if (intent === undefined) {
      throw new HyphaError(
        'E_INTERNAL',
        `step ${call.call} of a plan has an outcome and no intent`,
      );
    }
    if (outcome.type === 'step-error') {
      this.#steps.push(planStepOf(verifier, intent));
      return;
    }
    const { rid, uses, verb, rawArgs, desired } = this.#parseAgain(call);
    const planned = { ...intent, class: verb.class, desired };
    const isChange = rid !== null && verb.class !== 'read';
    const before = isChange ? this.#committed.get(rid) : undefined;
    this.#steps.push(planStepOf(verifier, planned, before));
    if (!isChange) return;
    if (uses !== null) this.#making.account.set(rid, uses);
    if (desired !== null) this.#declared.add(rid);
    const action = intent.action as PlannedStep['action'];
    const args = withSecrets(this.#context.grant, rawArgs);
    this.#world.add(rid, { verb: verb.verb, args, action, desired });
  }

  #parseAgain(call: ScriptCall): StepCall {
    try {
      return parseCall({ context: this.#context, isDeclared: () => true }, call);
    } catch (error) {
      // The node lost a SAL since a crash: the rest of the plan would be of another node.
      throw error instanceof HyphaError ? new RunFailure(error) : error;
    }
  }

  async #predict(call: StepCall): Promise<{ result: Json; intent: StepIntent }> {
    const { verb, args } = call;
    const predict = verb.class === 'once' ? undefined : verb.predict?.bind(verb);
    if (predict === undefined) throw planEndAt(call);
    const context = this.#context;
    const planned = this.#world;
    const plan = await attempt(context, call, 'plan', (step) =>
      verb.plan({ ...step, planned }, args),
    );
    const found = await attempt(context, call, 'plan', (step) =>
      predict({ ...step, planned }, args, plan),
    );
    if (found === undefined) throw planEndAt(call);
    const isOwn = verb.capability === null;
    const action = isOwn ? 'wait' : verb.class === 'read' ? 'read' : plan.action;
    const intent: StepIntent = {
      type: 'step-intent',
      step: call.step,
      verb: verb.verb,
      class: 'read',
      args: call.rawArgs,
      // Nothing is touched, so the reconciler need not leave it alone.
      rid: null,
      kind: verb.kind,
      name: call.name,
      action,
      before: null,
      desired: null,
      ...(plan.differs === undefined ? {} : { differs: [...plan.differs] }),
    };
    return { result: checkResult(call, found), intent };
  }
}

function planEndAt({ step, verb, name }: StepCall): PlanEnd {
  const label = name === null ? verb.verb : `${verb.verb} ${name}`;
  return new PlanEnd(`step ${step}, ${label}: only a real run can tell what it answers`);
}
