import { beforeEach, describe, expect, test } from 'vitest';
import { PlannedSteps } from './planned-steps.ts';
import type { StepContractOptions } from './step-contract-suite.ts';
import { apply, predict, type StagedCall, StepStage } from './step-stage.ts';
import type { ContractWorld } from './world.ts';

export interface ReadCase<World extends ContractWorld> extends StagedCall<World> {
  /** What is thrown where nothing of `given` was made. */
  readonly codeWithout: string;
}

/** The step contract for verbs of class `read`: the same answer however it is asked, and no effect. */
export function describeReadContract<World extends ContractWorld>(
  options: StepContractOptions<World, ReadCase<World>>,
): void {
  const { adapter, createWorld, cases, lacking } = options;
  const timeout = { timeout: options.timeoutMs ?? 120_000 };
  describe.each(cases)(`${adapter}: $verb $title`, (readCase) => {
    const stage = new StepStage(createWorld, readCase);
    beforeEach((context) => {
      if (lacking !== undefined) context.skip(lacking);
    });

    test('reads without an effect, twice the same, as predicted (S1, S2, S7)', timeout, () =>
      stage.use(async ({ world, before, sal }) => {
        const step = await stage.open(sal);
        expect(step.verb.class).toBe('read');
        expect(step.plan).toEqual({ action: 'run', before: null });
        const read = await apply(step);
        expect(await apply(step)).toEqual(read);
        expect(await predict(step)).toEqual(read);
        expect(await world.capture()).toEqual(before);
      }),
    );

    test('predicts the same of what is only planned (S8)', timeout, async () => {
      const { result } = await stage.applyWhole();
      await stage.useEmpty(async ({ world, before, sal }) => {
        const planned = new PlannedSteps();
        for (const call of readCase.given ?? []) await planned.add(sal, call);
        expect(await predict(await stage.open(sal, { planned }))).toEqual(result);
        expect(await world.capture()).toEqual(before);
      });
    });

    test('says so when there is nothing to read', timeout, () =>
      stage.useEmpty(async ({ sal }) => {
        const step = await stage.open(sal);
        const failure = { code: readCase.codeWithout };
        await expect(apply(step)).rejects.toMatchObject(failure);
        await expect(predict(step)).rejects.toMatchObject(failure);
      }),
    );

    test('ends when its signal does (S6)', timeout, () =>
      stage.use(async ({ sal }) => {
        const step = await stage.open(sal);
        const reason = new Error('cancelled by the suite');
        const context = { ...step.context, signal: AbortSignal.abort(reason) };
        await expect(apply({ ...step, context })).rejects.toBe(reason);
      }),
    );
  });
}
