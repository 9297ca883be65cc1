import type { DesiredResource, Rid } from '@hypha/protocol';
import { specHashOf } from '../resource-label.ts';
import type { Sal } from '../sal.ts';
import type { PlannedStep, PlannedWorld } from '../step-contract.ts';
import { type ContractCall, contractContext, getVerb } from './world.ts';

/** The steps of a plan in the making. */
export class PlannedSteps implements PlannedWorld {
  readonly #steps: (PlannedStep & { readonly rid: Rid })[] = [];

  find(rid: Rid): DesiredResource | undefined {
    return this.stepsOn(rid).findLast(({ desired }) => desired !== null)?.desired ?? undefined;
  }

  stepsOn(rid: Rid): readonly PlannedStep[] {
    return this.#steps.filter((step) => step.rid === rid);
  }

  /** Plans and predicts the call, and takes it for made from now on. */
  async add(sal: Sal, call: ContractCall): Promise<void> {
    const verb = getVerb(sal, call.verb);
    const context = contractContext(verb, call, { planned: this });
    const { rid, name } = context;
    const args = verb.parse(call.args);
    const plan = await verb.plan(context, args);
    const predicted = await verb.predict?.(context, args, plan);
    if (predicted === undefined) throw new Error(`${call.verb} is not predicted`);
    const spec = verb.spec?.(args).spec;
    if (rid === null || name === null || verb.kind === null) return;
    const desired =
      spec === undefined ? null : { rid, kind: verb.kind, name, spec, specHash: specHashOf(spec) };
    this.#steps.push({ verb: call.verb, args: call.args, action: plan.action, desired, rid });
  }
}
