import { beforeEach, describe, expect, test } from 'vitest';
import type { StepPlan } from '../step-contract.ts';
import { forEachCrashPoint, untilDeath } from './interruption.ts';
import { PlannedSteps } from './planned-steps.ts';
import { apply, predict, probe, type StagedCall, StepStage, undo } from './step-stage.ts';
import { type ContractCall, type ContractWorld, getVerb } from './world.ts';

export interface StepCase<World extends ContractWorld> extends StagedCall<World> {
  /** What `plan` must say. */
  readonly action: StepPlan['action'];
  /** The fields that `plan` must name; absent: not looked at. */
  readonly differs?: readonly string[];
  /** A call on another resource, which the same run makes at the same time. */
  readonly beside?: ContractCall;
  /** A call on the same resource, which the same run makes next. */
  readonly next?: ContractCall;
}

export interface StepContractOptions<World extends ContractWorld, Case> {
  readonly adapter: string;
  readonly createWorld: () => Promise<World>;
  readonly cases: readonly Case[];
  readonly timeoutMs?: number;
  /** What this machine lacks to run them, as `needs …`: every test is then skipped with that note. */
  readonly lacking?: string | undefined;
}

/**
 * The step contract S1 to S8 for verbs of class `ensure` and `transition`, each case in worlds of its own.
 * Source: design §10 and `step-contract.ts`.
 */
export function describeStepContract<World extends ContractWorld>(
  options: StepContractOptions<World, StepCase<World>>,
): void {
  const { adapter, createWorld, cases, lacking } = options;
  const timeout = { timeout: options.timeoutMs ?? 120_000 };
  describe.each(cases)(`${adapter}: $verb $title`, (stepCase) => {
    const scene = new StepScene(createWorld, stepCase);
    beforeEach((context) => {
      if (lacking !== undefined) context.skip(lacking);
    });

    test('plans and predicts without an effect (S1, S7)', timeout, () =>
      scene.plansWithoutEffect(),
    );
    test('plans and predicts the same on what is only planned (S8)', timeout, () =>
      scene.plansOnPlanned(),
    );
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
    const { beside, next } = stepCase;
    if (beside !== undefined) {
      test('goes on beside a step on another, crash or not', timeout, () => scene.goesOn(beside));
    }
    if (next !== undefined) {
      test('is undone after the next step on the same', timeout, () => scene.undoesBoth(next));
    }
  });
}

class StepScene<World extends ContractWorld> {
  readonly #stage: StepStage<World>;
  readonly #case: StepCase<World>;

  constructor(createWorld: () => Promise<World>, stepCase: StepCase<World>) {
    this.#stage = new StepStage(createWorld, stepCase);
    this.#case = stepCase;
  }

  async plansWithoutEffect(): Promise<void> {
    const { action, differs } = this.#case;
    await this.#stage.use(async ({ world, before, sal }) => {
      const step = await this.#stage.open(sal);
      expect(step.plan.action).toBe(action);
      if (differs !== undefined) expect(step.plan.differs).toEqual(differs);
      expect(JSON.parse(JSON.stringify(step.plan.before))).toEqual(step.plan.before);
      const predicted = await predict(step);
      expect(await world.capture()).toEqual(before);
      expect(predicted).toEqual(await apply(step));
    });
  }

  async plansOnPlanned(): Promise<void> {
    const real = await this.#stage.applyWhole();
    await this.#stage.useEmpty(async ({ world, before, sal }) => {
      const planned = new PlannedSteps();
      for (const call of this.#case.given ?? []) await planned.add(sal, call);
      const step = await this.#stage.open(sal, { planned });
      const { action, differs = [] } = step.plan;
      expect({ action, differs }).toEqual({
        action: real.plan.action,
        differs: real.plan.differs ?? [],
      });
      expect(await predict(step)).toEqual(real.result);
      expect(await world.capture()).toEqual(before);
    });
  }

  async appliesTwice(): Promise<void> {
    await this.#stage.use(async ({ world, before, sal }) => {
      const step = await this.#stage.open(sal);
      const first = await apply(step);
      const made = await world.capture();
      if (this.#case.action !== 'no-op') expect(made).not.toEqual(before);
      expect(await probe(step)).toEqual({ state: 'done', result: first });
      const again = await this.#stage.reopen(world, step);
      expect(await apply(again)).toEqual(first);
      expect(await world.capture()).toEqual(made);
    });
  }

  async probesAfterCrashes(): Promise<void> {
    const whole = await this.#stage.applyWhole();
    const crashPoints = await forEachCrashPoint(async (effects, crashPoint) => {
      await this.#stage.use(async ({ world, sal }) => {
        const step = await this.#stage.open(sal);
        await this.#stage.applyUntilDeath(world, step, effects);
        const next = await this.#stage.reopen(world, step);
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
    await this.#stage.use(async ({ world, before, sal }) => {
      const step = await this.#stage.open(sal);
      await undo(step);
      expect(await world.capture(), 'not begun').toEqual(before);
    });
    await forEachCrashPoint(async (effects, crashPoint) => {
      await this.#stage.use(async ({ world, before, sal }) => {
        const step = await this.#stage.open(sal);
        await this.#stage.applyUntilDeath(world, step, effects);
        const next = await this.#stage.reopen(world, step);
        await undo(next);
        expect(await world.capture(), `undone, ${crashPoint}`).toEqual(before);
        await undo(next);
        expect(await world.capture(), `undone twice, ${crashPoint}`).toEqual(before);
      });
    });
  }

  async finishesCutUndo(): Promise<void> {
    await forEachCrashPoint(async (effects, crashPoint) => {
      await this.#stage.use(async ({ world, before, sal }) => {
        const step = await this.#stage.open(sal);
        await apply(step);
        const cut = getVerb(await world.open(effects), this.#case.verb);
        await untilDeath(effects, () => undo({ ...step, verb: cut }));
        await undo(await this.#stage.reopen(world, step));
        expect(await world.capture(), crashPoint).toEqual(before);
      });
    });
  }

  async labels(): Promise<void> {
    await this.#stage.use(async ({ sal }) => {
      const step = await this.#stage.open(sal);
      await apply(step);
      const { rid, name } = step.context;
      const listed = await sal.resource.list(step.context.signal);
      const own = listed.filter((entry) => entry.rid === rid);
      expect(own).toHaveLength(1);
      expect(own[0]?.label).toContain(String(name));
    });
  }

  async endsWithSignal(): Promise<void> {
    await this.#stage.use(async ({ world, before, sal }) => {
      const step = await this.#stage.open(sal);
      const reason = new Error('cancelled by the suite');
      const context = { ...step.context, signal: AbortSignal.abort(reason) };
      await expect(apply({ ...step, context })).rejects.toBe(reason);
      await undo(await this.#stage.reopen(world, step));
      expect(await world.capture()).toEqual(before);
    });
  }

  /** The engine has steps of one run under way at once: none sees, waits for or spoils another. */
  async goesOn(beside: ContractCall): Promise<void> {
    await forEachCrashPoint(async (effects, crashPoint) => {
      await this.#stage.use(async ({ world, before, sal }) => {
        const step = await this.#stage.open(sal);
        const other = await this.#stage.open(sal, { call: beside, step: 2 });
        const [, result] = await Promise.all([
          this.#stage.applyUntilDeath(world, step, effects),
          apply(other),
        ]);
        const next = await this.#stage.reopen(world, step);
        await Promise.all([apply(next), apply(other)]);
        expect((await probe(next)).state, crashPoint).toBe('done');
        expect(await probe(other), crashPoint).toEqual({ state: 'done', result });
        await Promise.all([undo(other), undo(next)]);
        expect(await world.capture(), crashPoint).toEqual(before);
      });
    });
  }

  /** Undone in reverse order, each finds what it had found. */
  async undoesBoth(call: ContractCall): Promise<void> {
    await this.#stage.use(async ({ world, before, sal }) => {
      const step = await this.#stage.open(sal);
      await apply(step);
      const between = await world.capture();
      const next = await this.#stage.open(sal, { call, step: 2 });
      await apply(next);
      expect(await world.capture()).not.toEqual(between);
      await undo(next);
      expect(await world.capture()).toEqual(between);
      await undo(step);
      expect(await world.capture()).toEqual(before);
    });
  }
}
