import type { DesiredResource, Rid } from '@hypha/protocol';
import type { PlannedStep, PlannedWorld } from '@hypha/sal';

/** What the steps of a plan would have done so far: later ones are planned in it (step contract S8). */
export class PredictedWorld implements PlannedWorld {
  // rid → the steps on it, oldest first
  readonly #steps = new Map<Rid, PlannedStep[]>();
  // rid → the resource as last declared
  readonly #declared = new Map<Rid, DesiredResource>();

  add(rid: Rid, step: PlannedStep): void {
    const steps = this.#steps.get(rid) ?? [];
    steps.push(step);
    this.#steps.set(rid, steps);
    if (step.desired !== null) this.#declared.set(rid, step.desired);
  }

  find(rid: Rid): DesiredResource | undefined {
    return this.#declared.get(rid);
  }

  stepsOn(rid: Rid): readonly PlannedStep[] {
    return this.#steps.get(rid) ?? [];
  }
}
