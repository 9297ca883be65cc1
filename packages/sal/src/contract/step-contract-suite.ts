import type { Json } from '@hypha/protocol';
import { beforeEach, describe, expect, test } from 'vitest';
import { EFFECTS } from '../effects.ts';
import type { Sal } from '../sal.ts';
import type { Probe, SalVerb, StepContext, StepPlan } from '../step-contract.ts';
import { forEachCrashPoint, type InterruptedEffects, untilDeath } from './interruption.ts';
import {
  applyWhole,
  type ContractCall,
  type ContractWorld,
  contractContext,
  getVerb,
} from './world.ts';

export interface StepCase<World extends ContractWorld> extends ContractCall {
  /** Reads on from the verb: `volume.ensure` … `grows one`. */
  readonly title: string;
  /** Calls an earlier run made whole: what exists when the step starts. */
  readonly given?: readonly ContractCall[];
  /** After `given`: data in a volume, a process in a container. */
  readonly arrange?: (world: World) => Promise<void>;
  /** What `plan` must say. */
  readonly action: StepPlan['action'];
}

/**
 * The step contract S1 to S6 for verbs of class `ensure` and `transition`, each case in worlds of its own.
 * Source: design §10 and `step-contract.ts`.
 */
export function describeStepContract<World extends ContractWorld>(options: {
  adapter: string;
  createWorld: () => Promise<World>;
  cases: readonly StepCase<World>[];
  timeoutMs?: number;
  /** What this machine lacks to run them, as `needs …`: every test is then skipped with that note. */
  lacking?: string | undefined;
}): void {
  const { adapter, createWorld, cases, lacking } = options;
  const timeout = { timeout: options.timeoutMs ?? 120_000 };
  describe.each(cases)(`${adapter}: $verb $title`, (stepCase) => {
    const scene = new StepScene(createWorld, stepCase);
    beforeEach((context) => {
      if (lacking !== undefined) context.skip(lacking);
    });

    test('plans without an effect (S1)', timeout, () => scene.plansWithoutEffect());
    test('applied twice makes one thing (S2)', timeout, () => scene.appliesTwice());
    test('is probed rightly after a crash anywhere in apply (S3)', timeout, () =>
      scene.probesAfterCrashes(),
    );
    test('is undone whole, partial and not begun, twice (S4)', timeout, () =>
      scene.undoesAfterCrashes(),
    );
    test('an undo cut anywhere is finished by the next (S4)', timeout, () =>
      scene.finishesCutUndo(),
    );
    test('labels what it made with its rid (S5)', timeout, () => scene.labels());
    test('ends when its signal does (S6)', timeout, () => scene.endsWithSignal());
  });
}

interface Stage<World> {
  readonly world: World;
  /** As the machine was before the step. */
  readonly before: Json;
  readonly sal: Sal;
}

interface OpenStep {
  readonly verb: SalVerb;
  readonly context: StepContext;
  readonly args: unknown;
  readonly plan: StepPlan;
}

class StepScene<World extends ContractWorld> {
  readonly #createWorld: () => Promise<World>;
  readonly #case: StepCase<World>;

  constructor(createWorld: () => Promise<World>, stepCase: StepCase<World>) {
    this.#createWorld = createWorld;
    this.#case = stepCase;
  }

  async plansWithoutEffect(): Promise<void> {
    await this.#onStage(async ({ world, before, sal }) => {
      const { plan } = await this.#open(sal);
      expect(plan.action).toBe(this.#case.action);
      expect(JSON.parse(JSON.stringify(plan.before))).toEqual(plan.before);
      expect(await world.capture()).toEqual(before);
    });
  }

  async appliesTwice(): Promise<void> {
    await this.#onStage(async ({ world, before, sal }) => {
      const step = await this.#open(sal);
      const first = await apply(step);
      const made = await world.capture();
      if (this.#case.action !== 'no-op') expect(made).not.toEqual(before);
      expect(await probe(step)).toEqual({ state: 'done', result: first });
      const again = await this.#reopen(world, step);
      expect(await apply(again)).toEqual(first);
      expect(await world.capture()).toEqual(made);
    });
  }

  async probesAfterCrashes(): Promise<void> {
    const whole = await this.#applyWhole();
    const crashPoints = await forEachCrashPoint(async (effects, crashPoint) => {
      await this.#onStage(async ({ world, sal }) => {
        const step = await this.#open(sal);
        await this.#applyUntilDeath(world, step, effects);
        const next = await this.#reopen(world, step);
        const seen = await probe(next);
        if (seen.state === 'done') {
          expect(await world.capture(), `done, ${crashPoint}`).toEqual(whole.capture);
          expect(seen.result, crashPoint).toEqual(whole.result);
          return;
        }
        expect(effects.isDead, `absent though apply ended, ${crashPoint}`).toBe(true);
        expect(await apply(next), crashPoint).toEqual(whole.result);
        expect(await world.capture(), `applied again, ${crashPoint}`).toEqual(whole.capture);
      });
    });
    if (this.#case.action !== 'no-op') expect(crashPoints).toBeGreaterThan(0);
  }

  async undoesAfterCrashes(): Promise<void> {
    await this.#onStage(async ({ world, before, sal }) => {
      const step = await this.#open(sal);
      await undo(step);
      expect(await world.capture(), 'not begun').toEqual(before);
    });
    await forEachCrashPoint(async (effects, crashPoint) => {
      await this.#onStage(async ({ world, before, sal }) => {
        const step = await this.#open(sal);
        await this.#applyUntilDeath(world, step, effects);
        const next = await this.#reopen(world, step);
        await undo(next);
        expect(await world.capture(), `undone, ${crashPoint}`).toEqual(before);
        await undo(next);
        expect(await world.capture(), `undone twice, ${crashPoint}`).toEqual(before);
      });
    });
  }

  async finishesCutUndo(): Promise<void> {
    await forEachCrashPoint(async (effects, crashPoint) => {
      await this.#onStage(async ({ world, before, sal }) => {
        const step = await this.#open(sal);
        await apply(step);
        const cut = getVerb(await world.open(effects), this.#case.verb);
        await untilDeath(effects, () => undo({ ...step, verb: cut }));
        await undo(await this.#reopen(world, step));
        expect(await world.capture(), crashPoint).toEqual(before);
      });
    });
  }

  async labels(): Promise<void> {
    await this.#onStage(async ({ sal }) => {
      const step = await this.#open(sal);
      await apply(step);
      const { rid, name } = step.context;
      const listed = await sal.resource.list(step.context.signal);
      const own = listed.filter((entry) => entry.rid === rid);
      expect(own).toHaveLength(1);
      expect(own[0]?.label).toContain(String(name));
    });
  }

  async endsWithSignal(): Promise<void> {
    await this.#onStage(async ({ world, before, sal }) => {
      const step = await this.#open(sal);
      const reason = new Error('cancelled by the suite');
      const context = { ...step.context, signal: AbortSignal.abort(reason) };
      await expect(apply({ ...step, context })).rejects.toBe(reason);
      await undo(await this.#reopen(world, step));
      expect(await world.capture()).toEqual(before);
    });
  }

  async #onStage(act: (stage: Stage<World>) => Promise<void>): Promise<void> {
    const world = await this.#createWorld();
    try {
      const sal = await world.open(EFFECTS);
      for (const [index, call] of (this.#case.given ?? []).entries()) {
        await applyWhole(sal, call, { step: index + 1 });
      }
      await this.#case.arrange?.(world);
      await act({ world, before: await world.capture(), sal });
    } finally {
      await world.close();
    }
  }

  async #open(sal: Sal): Promise<OpenStep> {
    const verb = getVerb(sal, this.#case.verb);
    const context = contractContext(verb, this.#case);
    const args = verb.parse(this.#case.args);
    return { verb, context, args, plan: await verb.plan(context, args) };
  }

  /** The same step in a new process: its intent survived, nothing in memory did. */
  async #reopen(world: World, step: OpenStep): Promise<OpenStep> {
    return { ...step, verb: getVerb(await world.open(EFFECTS), this.#case.verb) };
  }

  async #applyUntilDeath(
    world: World,
    step: OpenStep,
    effects: InterruptedEffects,
  ): Promise<Json | undefined> {
    const verb = getVerb(await world.open(effects), this.#case.verb);
    return untilDeath(effects, () => apply({ ...step, verb }));
  }

  async #applyWhole(): Promise<{ result: Json; capture: Json }> {
    let whole: { result: Json; capture: Json } | undefined;
    await this.#onStage(async ({ world, sal }) => {
      const result = await apply(await this.#open(sal));
      whole = { result, capture: await world.capture() };
    });
    if (whole === undefined) throw new Error('nothing was applied');
    return whole;
  }
}

function apply({ verb, context, args, plan }: OpenStep): Promise<Json> {
  return verb.apply(context, args, plan.before);
}

async function probe({ verb, context, args, plan }: OpenStep): Promise<Probe> {
  if (verb.probe === undefined) throw new Error(`${verb.verb} has no probe`);
  return verb.probe(context, args, plan.before);
}

async function undo({ verb, context, args, plan }: OpenStep): Promise<void> {
  if (verb.undo === undefined) throw new Error(`${verb.verb} has no undo`);
  await verb.undo(context, args, plan.before);
}
