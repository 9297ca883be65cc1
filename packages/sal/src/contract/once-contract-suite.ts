import { beforeEach, describe, expect, test } from 'vitest';
import { forEachCrashPoint } from './interruption.ts';
import type { StepContractOptions } from './step-contract-suite.ts';
import { apply, type OpenStep, type StagedCall, StepStage } from './step-stage.ts';
import type { ContractWorld } from './world.ts';

export interface OnceCase<World extends ContractWorld> extends StagedCall<World> {
  /** How often the call has had its effect in this world; absent where it has none, as in a simulation. */
  readonly countEffects?: (world: World) => Promise<number>;
}

/**
 * The step contract for verbs of class `once`: one effect for each `apply`, none that outlives it, and nobody
 * who could say later whether it happened. The engine has to ask the signer before it applies a second time.
 */
export function describeOnceContract<World extends ContractWorld>(
  options: StepContractOptions<World, OnceCase<World>>,
): void {
  const { adapter, createWorld, cases, lacking } = options;
  const timeout = { timeout: options.timeoutMs ?? 120_000 };
  describe.each(cases)(`${adapter}: $verb $title`, (onceCase) => {
    const stage = new StepStage(createWorld, onceCase);
    const count = async (world: World) => onceCase.countEffects?.(world);
    const times = (expected: number) =>
      onceCase.countEffects === undefined ? undefined : expected;
    beforeEach((context) => {
      if (lacking !== undefined) context.skip(lacking);
    });

    test('plans without an effect, and promises neither probe nor undo (S1)', timeout, () =>
      stage.use(async ({ world, before, sal }) => {
        const { verb, plan } = await stage.open(sal);
        expect(verb).toMatchObject({ class: 'once' });
        expect([verb.probe, verb.undo, verb.predict]).toEqual([undefined, undefined, undefined]);
        expect(plan.action).toBe('run');
        expect(await world.capture()).toEqual(before);
      }),
    );

    test('has its effect once for each apply', timeout, () =>
      stage.use(async ({ world, sal }) => {
        const step = await stage.open(sal);
        const first = await apply(step);
        expect(await count(world)).toBe(times(1));
        expect(await apply(await stage.reopen(world, step))).toEqual(first);
        expect(await count(world)).toBe(times(2));
      }),
    );

    test(
      'cut anywhere had its effect at most once, and can be repeated (S3)',
      timeout,
      async () => {
        await forEachCrashPoint(async (effects, crashPoint) => {
          await stage.use(async ({ world, sal }) => {
            const step = await stage.open(sal);
            await stage.applyUntilDeath(world, step, effects);
            const done = await count(world);
            expect(done ?? 0, crashPoint).toBeLessThanOrEqual(1);
            await apply(await stage.reopen(world, step));
            expect(await count(world), crashPoint).toBe(times((done ?? 0) + 1));
          });
        });
      },
    );

    test('has none when its signal ended before (S6)', timeout, () =>
      stage.use(async ({ world, sal }) => {
        const step = await stage.open(sal);
        await expect(apply(aborted(step))).rejects.toThrow('cancelled by the suite');
        expect(await count(world)).toBe(times(0));
      }),
    );
  });
}

function aborted(step: OpenStep): OpenStep {
  const signal = AbortSignal.abort(new Error('cancelled by the suite'));
  return { ...step, context: { ...step.context, signal } };
}
