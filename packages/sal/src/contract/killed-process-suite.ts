import type { Json } from '@hypha/protocol';
import { beforeEach, describe, expect, test } from 'vitest';
import type { Fence } from '../fence-cgroup.ts';
import { applyInProcess } from './killed-process.ts';
import type { StepContractOptions } from './step-contract-suite.ts';
import { apply, probe, type StagedCall, StepStage, undo } from './step-stage.ts';
import type { ContractWorld } from './world.ts';

/** More effects than this in one step is a loop. */
const EFFECTS_MAX = 500;

/**
 * S3 and S4 of the step contract after SIGKILL to the process itself, in the middle of each of its effects. What
 * follows takes turns: the step is resumed after one effect and undone after the next.
 */
export function describeKilledProcess<World extends ContractWorld>(
  options: StepContractOptions<World, StagedCall<World>> & {
    /** Absolute path of the program that calls `applyFatally`. */
    readonly script: string;
    /** What the program makes its world of. */
    readonly tellWorld: (world: World) => Json;
    readonly openFence: (world: World) => Promise<Fence>;
  },
): void {
  const { adapter, createWorld, cases, lacking, script, tellWorld, openFence } = options;
  const timeout = { timeout: options.timeoutMs ?? 300_000 };
  describe.each(cases)(`${adapter}: $verb $title`, (call) => {
    const stage = new StepStage(createWorld, call);
    beforeEach((context) => {
      if (lacking !== undefined) context.skip(lacking);
    });

    test(
      'is resumed or undone whatever was under way when its process was killed',
      timeout,
      async () => {
        const whole = await stage.applyWhole();
        let isKilled = true;
        let limit = 0;
        while (isKilled && limit < EFFECTS_MAX) {
          limit++;
          await stage.use(async ({ world, before, sal }) => {
            const point = `in effect ${limit}`;
            const step = await stage.open(sal);
            const told = {
              world: tellWorld(world),
              call: callOf(call),
              before: step.plan.before,
              limit,
            };
            isKilled = await applyInProcess(script, told, await openFence(world));
            const next = await stage.reopen(world, step);
            if (limit % 2 === 0) {
              await undo(next);
              expect(await world.capture(), `undone, killed ${point}`).toEqual(before);
              return;
            }
            const seen = await probe(next);
            if (!isKilled) expect(seen.state, point).toBe('done');
            const result = seen.state === 'done' ? seen.result : await apply(next);
            expect(result, point).toEqual(whole.result);
            expect(await world.capture(), `${seen.state}, killed ${point}`).toEqual(whole.capture);
          });
        }
        expect(isKilled).toBe(false);
        expect(limit).toBeGreaterThan(1);
      },
    );
  });
}

function callOf<World extends ContractWorld>({ verb, name, args }: StagedCall<World>) {
  return { verb, name, args };
}
