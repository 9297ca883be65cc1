/**
 * The step contract: what every SAL verb promises, so that a run survives a crash anywhere.
 *
 * S1  `plan` reads and has no effect. Its `before` is all that `probe` and `undo` will need; it is
 *     durable before `apply` starts.
 * S2  `apply` twice with the same arguments and `before` makes one thing, not two.
 * S3  `probe` is right after a crash at any point of `apply`: `done` only when the effect is whole.
 *     Anything less is `absent`, and `apply` must then cope with what it finds.
 * S4  `undo` after a whole, a partial or no `apply` brings back `before`. It is idempotent. Data that
 *     existed before is never deleted.
 * S5  Everything made carries its `rid`, so that a reader can tell whose it is without any database.
 * S6  No verb waits without a deadline; `context.signal` ends it.
 * S7  `prepare` fetches what the step needs and changes nothing a script can see; what it got stays, so a
 *     second is quick. `predict` has no effect and says what `apply` would return.
 * S8  Where a context has `planned`, nothing is applied: `plan` and `predict` read the world as those steps
 *     would leave it, and the machine only for what they do not touch. A resource that `planned.find` has
 *     is there, with that spec: one that is referred to passes every check of being there; the step's own
 *     is compared with it, so the same spec again is `no-op` and another what it would be for a real one.
 *     A transition that `planned.stepsOn` has is made already. `before` is then never used.
 *
 * Source: design §10. The suite in `contract/` checks S1 to S5 against every adapter.
 */
import type { DesiredResource, Json, Rid, VerbClass } from '@hypha/protocol';

/** A step of the plan in the making, as if it had been applied. */
export interface PlannedStep {
  readonly verb: string;
  /** As `parse` got them. */
  readonly args: Json;
  readonly action: StepPlan['action'];
  /** Of `ensure` verbs: the resource as it would be. */
  readonly desired: DesiredResource | null;
}

/** What earlier steps of the same plan would have done: the world a later one is planned in (S8). */
export interface PlannedWorld {
  /** The resource as last declared; undefined when no step declared it: the machine then knows. */
  find(rid: Rid): DesiredResource | undefined;
  /** Every step on the resource, oldest first. Reads are not among them. */
  stepsOn(rid: Rid): readonly PlannedStep[];
}

/** Whose resource a step works on. Fixed by the signed envelope, never by the script. */
export interface StepContext {
  readonly realm: string;
  readonly deployment: string;
  readonly run: string;
  readonly step: number;
  /** Null for verbs that name no resource. */
  readonly rid: Rid | null;
  readonly name: string | null;
  readonly signal: AbortSignal;
  /** `<run>/<step>`: kept on what the step changes, as `lastOp`. */
  readonly op: string;
  /** Present while a plan is made; `plan` and `predict` then heed S8. */
  readonly planned?: PlannedWorld;
}

export interface StepPlan {
  readonly action: 'create' | 'update' | 'replace' | 'no-op' | 'run';
  /** The before-image. Stored in the journal. */
  readonly before: Json;
  /** Fields that differ, for people: `image`, `memory` … */
  readonly differs?: readonly string[];
}

export type Probe =
  | { readonly state: 'done'; readonly result: Json }
  | { readonly state: 'absent' };

/** One SAL call a script can make. `Args` is what `parse` made of the script's JSON. */
export interface SalVerb<Args = unknown> {
  /** `volume.ensure`, `volume.snapshot`, `container.exec` … */
  readonly verb: string;
  readonly class: VerbClass;
  /** Capability the envelope must have been signed with. */
  readonly capability: string;
  /** Kind of the resource named by the call's `name`; null when it names none. */
  readonly kind: string | null;
  /** Throws `HyphaError` `E_ARGUMENT` with the path of the wrong field in `where`. Pure. */
  parse(args: Json): Args;
  /**
   * For `ensure` verbs: the spec with defaults filled in, which becomes the desired record, and what
   * of `limits.resources` it takes. Pure.
   */
  spec?(args: Args): { spec: Json; uses: ResourceUse };
  /**
   * Longest that one `plan` or `apply` may take, milliseconds; absent: the engine's own bound. Past it the call
   * is aborted and the step fails with `E_TIMEOUT`, which a script can catch.
   */
  deadlineMs?(args: Args): number;
  /** Before `plan`, with a longer deadline and off the run's clock: images are pulled here. */
  prepare?(context: StepContext, args: Args): Promise<void>;
  plan(context: StepContext, args: Args): Promise<StepPlan>;
  /**
   * For `ensure`, `transition` and `read`: what `apply` would return. Absent, or undefined where only the real
   * thing can tell (a reading of what is only planned): the plan ends there, as `partial`.
   */
  predict?(context: StepContext, args: Args, plan: StepPlan): Promise<Json | undefined>;
  apply(context: StepContext, args: Args, before: Json): Promise<Json>;
  probe?(context: StepContext, args: Args, before: Json): Promise<Probe>;
  undo?(context: StepContext, args: Args, before: Json): Promise<void>;
}

export interface ResourceUse {
  readonly milliCpus: number;
  readonly memoryBytes: number;
  readonly storageBytes: number;
}

export const NO_USE: ResourceUse = { milliCpus: 0, memoryBytes: 0, storageBytes: 0 };

/** Lets a table of verbs hold verbs of different arguments without `any`. */
export function defineVerb<Args>(verb: SalVerb<Args>): SalVerb {
  // The engine only ever passes back what this verb's own `parse` returned.
  return verb as unknown as SalVerb;
}
