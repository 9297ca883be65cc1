/** Where the suites try one call: a world that holds what the case wants, and the step opened on it. */
import type { Json } from '@hypha/protocol';
import { EFFECTS } from '../effects.ts';
import type { Sal } from '../sal.ts';
import type { PlannedWorld, Probe, SalVerb, StepContext, StepPlan } from '../step-contract.ts';
import { type InterruptedEffects, untilDeath } from './interruption.ts';
import {
  applyWhole,
  type ContractCall,
  type ContractWorld,
  contractContext,
  getVerb,
} from './world.ts';

export interface StagedCall<World extends ContractWorld> extends ContractCall {
  /** Reads on from the verb: `volume.ensure` … `grows one`. */
  readonly title: string;
  /** Calls an earlier run made whole: what exists when the step starts. */
  readonly given?: readonly ContractCall[];
  /** After `given`: data in a volume, a process in a container. */
  readonly arrange?: (world: World) => Promise<void>;
}

export interface Stage<World> {
  readonly world: World;
  /** As the machine was before the step. */
  readonly before: Json;
  readonly sal: Sal;
}

export interface OpenStep {
  readonly verb: SalVerb;
  readonly context: StepContext;
  readonly args: unknown;
  readonly plan: StepPlan;
}

export class StepStage<World extends ContractWorld> {
  readonly #createWorld: () => Promise<World>;
  readonly call: StagedCall<World>;

  constructor(createWorld: () => Promise<World>, call: StagedCall<World>) {
    this.#createWorld = createWorld;
    this.call = call;
  }

  /** In a world as the case wants it. */
  use(act: (stage: Stage<World>) => Promise<void>): Promise<void> {
    return this.#use(act, this.call.given ?? [], this.call.arrange);
  }

  /** In a world where nothing was made yet. */
  useEmpty(act: (stage: Stage<World>) => Promise<void>): Promise<void> {
    return this.#use(act, []);
  }

  async open(
    sal: Sal,
    options: { call?: ContractCall; step?: number; planned?: PlannedWorld } = {},
  ): Promise<OpenStep> {
    const { call = this.call, ...rest } = options;
    const verb = getVerb(sal, call.verb);
    const context = contractContext(verb, call, rest);
    const args = verb.parse(call.args);
    return { verb, context, args, plan: await verb.plan(context, args) };
  }

  /** The same step in a new process: its intent survived, nothing in memory did. */
  async reopen(world: World, step: OpenStep): Promise<OpenStep> {
    return { ...step, verb: getVerb(await world.open(EFFECTS), step.verb.verb) };
  }

  async applyUntilDeath(
    world: World,
    step: OpenStep,
    effects: InterruptedEffects,
  ): Promise<Json | undefined> {
    const verb = getVerb(await world.open(effects), step.verb.verb);
    return untilDeath(effects, () => apply({ ...step, verb }));
  }

  async applyWhole(): Promise<{ plan: StepPlan; result: Json; capture: Json }> {
    let whole: { plan: StepPlan; result: Json; capture: Json } | undefined;
    await this.use(async ({ world, sal }) => {
      const step = await this.open(sal);
      const result = await apply(step);
      whole = { plan: step.plan, result, capture: await world.capture() };
    });
    if (whole === undefined) throw new Error('nothing was applied');
    return whole;
  }

  async #use(
    act: (stage: Stage<World>) => Promise<void>,
    given: readonly ContractCall[],
    arrange?: (world: World) => Promise<void>,
  ): Promise<void> {
    const world = await this.#createWorld();
    try {
      const sal = await world.open(EFFECTS);
      for (const [index, call] of given.entries()) await applyWhole(sal, call, { step: index + 1 });
      await arrange?.(world);
      await act({ world, before: await world.capture(), sal });
    } finally {
      await world.close();
    }
  }
}

export function apply({ verb, context, args, plan }: OpenStep): Promise<Json> {
  return verb.apply(context, args, plan.before);
}

export async function predict({ verb, context, args, plan }: OpenStep): Promise<Json | undefined> {
  if (verb.predict === undefined) throw new Error(`${verb.verb} has no predict`);
  return verb.predict(context, args, plan);
}

export async function probe({ verb, context, args, plan }: OpenStep): Promise<Probe> {
  if (verb.probe === undefined) throw new Error(`${verb.verb} has no probe`);
  return verb.probe(context, args, plan.before);
}

export async function undo({ verb, context, args, plan }: OpenStep): Promise<void> {
  if (verb.undo === undefined) throw new Error(`${verb.verb} has no undo`);
  await verb.undo(context, args, plan.before);
}
