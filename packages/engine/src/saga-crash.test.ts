/**
 * Dies at every point where a process can die (before and after each append, and around each part of each
 * effect), resumes, and compares with the run that did not die. Then dies again in the resumed run.
 */
import type { Json, ScriptPayloadInput } from '@hypha/protocol';
import { describe, expect, test } from 'vitest';
import type { SagaOutcome } from './saga.ts';
import { SagaRig } from './testing/saga-rig.ts';
import type { Script } from './testing/scripted-guest.ts';

/** Hundreds of runs; on a busy machine they take a while. */
const TIME = { timeout: 180_000 };

interface Scenario {
  readonly name: string;
  readonly script: Script;
  readonly payload?: Partial<ScriptPayloadInput>;
  /** Effects of an undone failure may be done and undone again: only balance is asked. */
  readonly isRepeatable?: boolean;
  readonly prepare?: (rig: SagaRig) => void;
  /** What happens at once happens in any order. `end`: only how the run ends is always the same. */
  readonly compares?: 'unordered' | 'end';
  /** Every how many points a second crash is tried. */
  readonly stride?: number;
}

const SCENARIOS: readonly Scenario[] = [
  {
    name: 'a script of many steps',
    script: async ({ call, log }) => {
      log('begins');
      const first = (await call('box.ensure', 'a', { size: 3 })) as { $rid: string };
      log('has a box', { rid: first.$rid });
      const [second] = await Promise.all([
        call('box.ensure', 'b', { size: 2, inside: first }),
        call('box.ensure', 'c', { busy: 2 }),
      ]);
      const before = await call('box.peek', 'b');
      await call('box.paint', 'b', { colour: 'red' });
      await call('box.ensure', 'a', { size: 4 });
      for (const args of [{ size: -1 }, { blind: true }]) {
        try {
          await call('box.ensure', 'd', args);
        } catch (error) {
          log('refused', { code: (error as { code: string }).code });
        }
      }
      return { before, after: await call('box.peek', 'b'), second } as Json;
    },
  },
  {
    name: 'a script that copes with a broken step',
    isRepeatable: true,
    script: async ({ call }) => {
      try {
        await call('box.ensure', 'a', { broken: true });
      } catch {
        await call('box.ensure', 'a', { size: 2 });
      }
      return await call('box.ensure', 'b');
    },
  },
  {
    name: 'a script that throws after changing what existed',
    script: async ({ call, log }) => {
      await call('box.ensure', 'old', { size: 9 });
      await call('box.paint', 'old', { colour: 'red' });
      await call('box.ensure', 'new', { size: 1 });
      log('about to fail');
      throw new Error('no more');
    },
    prepare: ({ world }) => {
      world.boxes.set('old', { size: 5, colour: 'blue', whole: true, lastOp: 'earlier/1' });
    },
  },
  {
    name: 'a script whose last step breaks',
    isRepeatable: true,
    script: async ({ call }) => {
      await call('box.ensure', 'a');
      await call('box.ensure', 'b', { broken: true });
    },
  },
  {
    name: 'a failed script that is kept',
    payload: { onFailure: 'keep' },
    script: async ({ call }) => {
      await call('box.ensure', 'a');
      throw new Error('keep it');
    },
  },
  {
    name: 'a script that does much at once',
    compares: 'unordered',
    stride: 4,
    script: async ({ call, log }) => {
      const names = ['a', 'b', 'c', 'd'];
      const boxes = await Promise.all(names.map((name) => call('box.ensure', name, { size: 2 })));
      log('has boxes');
      const [inside] = await Promise.all([
        call('box.ensure', 'e', { inside: boxes, busy: 1 }),
        call('box.paint', 'a', { colour: 'red' }),
        call('box.paint', 'a', { colour: 'blue' }),
        call('sleep', null, { duration: 100 }),
        call('box.ensure', 'b', { size: 3 }),
        ...names.map((name) => call('box.peek', name)),
      ]);
      return { inside, colour: await call('box.peek', 'a') } as Json;
    },
  },
  {
    name: 'a script that fails with much under way',
    compares: 'end',
    stride: 3,
    script: async ({ call }) => {
      await call('box.ensure', 'old', { size: 9 });
      await Promise.all([
        call('box.ensure', 'a'),
        call('box.paint', 'old', { colour: 'red' }),
        call('box.ensure', 'b', { broken: true }),
        call('box.ensure', 'c', { busy: 1 }),
      ]);
    },
    prepare: ({ world }) => {
      world.boxes.set('old', { size: 5, colour: 'blue', whole: true, lastOp: 'earlier/1' });
    },
  },
  { name: 'a destroy', payload: { mode: 'destroy', script: undefined }, script: async () => null },
];

function rigFor(scenario: Scenario): SagaRig {
  const rig = new SagaRig(scenario.script, scenario.payload);
  scenario.prepare?.(rig);
  return rig;
}

/** What must be the same however often the process died. */
function endOf({ compares, isRepeatable }: Scenario, rig: SagaRig, outcome: SagaOutcome) {
  const end = everythingOf(rig, outcome);
  if (compares === undefined) return { ...end, effects: effectsOf(isRepeatable === true, rig) };
  const { world, violations, finished } = end;
  const [problem, leftovers] = [finished?.problem, finished?.leftovers];
  if (compares === 'end') return { outcome, world, violations, problem, leftovers };
  const byStep = (left: { step: number }, right: { step: number }) => left.step - right.step;
  return {
    ...end,
    effects: rig.world.effects.toSorted(),
    committed: end.committed?.desired.map(({ name }) => name).sort(),
    intents: end.intents.map((intent) => ({ ...intent, before: null })).sort(byStep),
    results: end.results.sort(byStep),
  };
}

function everythingOf(rig: SagaRig, outcome: SagaOutcome) {
  const [committed] = rig.bodiesOf('committed');
  const [finished] = rig.bodiesOf('finished');
  return {
    outcome,
    world: rig.world.snapshot(),
    committed,
    finished,
    intents: rig.bodiesOf('step-intent'),
    results: rig.bodiesOf('step-result').map(({ step, result }) => ({ step, result })),
    errors: rig.bodiesOf('step-error').map(({ step, error }) => ({ step, error })),
    undone: rig.bodiesOf('undo-result'),
    logs: rig.bodiesOf('log'),
    violations: rig.world.violations,
  };
}

function effectsOf(balance: boolean, rig: SagaRig): readonly string[] | Record<string, number> {
  if (!balance) return rig.world.effects;
  const names = new Set(rig.world.effects.map((effect) => effect.split(' ')[1] ?? ''));
  return Object.fromEntries(
    [...names].map((name) => [
      name,
      rig.world.count(`create ${name}`) - rig.world.count(`delete ${name}`),
    ]),
  );
}

describe.each(SCENARIOS)('$name', (scenario) => {
  test('ends the same after a crash at any point, and after a second one', TIME, async () => {
    const calm = rigFor(scenario);
    const { outcome, points } = await calm.runWithCrashes([]);
    const expected = endOf(scenario, calm, outcome);
    const { stride = 1 } = scenario;
    let crashes = 0;
    for (let first = 1; first <= points.length; first++) {
      const once = rigFor(scenario);
      const resumed = await once.runWithCrashes([first]);
      expect(
        endOf(scenario, once, resumed.outcome),
        `crash at ${first}, ${points[first - 1]}`,
      ).toEqual(expected);
      for (let second = 1; second <= resumed.points.length; second += stride) {
        const twice = rigFor(scenario);
        const again = await twice.runWithCrashes([first, second]);
        const place = `crash at ${points[first - 1]}, then at ${resumed.points[second - 1]}`;
        expect(endOf(scenario, twice, again.outcome), place).toEqual(expected);
        crashes += 1;
      }
    }
    process.stdout.write(
      `${scenario.name}: ${points.length} crash points, ${crashes} pairs of crashes\n`,
    );
    expect(points.length).toBeGreaterThan(1);
  });
});

test('a cancelled run ends cancelled and undone after a crash at any point', TIME, async () => {
  const cancelledRig = () => {
    const rig = new SagaRig(async ({ call }) => {
      await call('box.ensure', 'a');
      await Promise.all([call('box.peek', 'a'), call('box.ensure', 'b'), call('box.ensure', 'c')]);
      await call('box.ensure', 'd');
    });
    rig.world.onApply = async ({ step, signal }) => {
      if (step === 3) {
        rig.journal.isCancelled = true;
        rig.cancel.abort();
      }
      if (step > 2) await rig.clock.sleep(20_000, signal);
    };
    return rig;
  };
  const { points } = await cancelledRig().runWithCrashes([]);
  for (const [index, point] of points.entries()) {
    const rig = cancelledRig();
    const { outcome } = await rig.runWithCrashes([index + 1]);
    expect(outcome, point).toMatchObject({ state: 'cancelled', problem: { code: 'E_CANCELLED' } });
    expect(rig.world.snapshot(), point).toEqual({});
    expect(rig.world.count('create d'), point).toBe(0);
    expect(rig.bodiesOf('finished').length, point).toBe(1);
  }
  process.stdout.write(`a cancelled run: ${points.length} crash points\n`);
});
