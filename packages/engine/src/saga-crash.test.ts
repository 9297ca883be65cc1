/**
 * Dies at every point where a process can die (before and after each append, and around each part of each
 * effect), resumes, and compares with the run that did not die. Then dies again in the resumed run.
 */
import type { Json, ScriptPayloadInput } from '@hypha/protocol';
import { describe, expect, test } from 'vitest';
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
  { name: 'a destroy', payload: { mode: 'destroy', script: undefined }, script: async () => null },
];

function rigFor(scenario: Scenario): SagaRig {
  const rig = new SagaRig(scenario.script, scenario.payload);
  scenario.prepare?.(rig);
  return rig;
}

/** What must be the same however often the process died. */
function endOf(rig: SagaRig, outcome: unknown) {
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

function effectsOf(scenario: Scenario, rig: SagaRig): readonly string[] | Record<string, number> {
  if (scenario.isRepeatable !== true) return rig.world.effects;
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
    const expected = { ...endOf(calm, outcome), effects: effectsOf(scenario, calm) };
    let crashes = 0;
    for (let first = 1; first <= points.length; first++) {
      const once = rigFor(scenario);
      const resumed = await once.runWithCrashes([first]);
      const end = { ...endOf(once, resumed.outcome), effects: effectsOf(scenario, once) };
      expect(end, `crash at ${first}, ${points[first - 1]}`).toEqual(expected);
      for (let second = 1; second <= resumed.points.length; second++) {
        const twice = rigFor(scenario);
        const again = await twice.runWithCrashes([first, second]);
        const place = `crash at ${points[first - 1]}, then at ${resumed.points[second - 1]}`;
        const endAgain = { ...endOf(twice, again.outcome), effects: effectsOf(scenario, twice) };
        expect(endAgain, place).toEqual(expected);
        crashes += 1;
      }
    }
    process.stdout.write(
      `${scenario.name}: ${points.length} crash points, ${crashes} pairs of crashes\n`,
    );
    expect(points.length).toBeGreaterThan(1);
  });
});

test('a cancelled run ends cancelled and undone after a crash at any point', async () => {
  const cancelledRig = () => {
    const rig = new SagaRig(async ({ call }) => {
      await call('box.ensure', 'a');
      await call('box.ensure', 'b');
      await call('box.ensure', 'c');
    });
    rig.world.onApply = ({ step }) => {
      if (step === 2) rig.cancel.abort();
    };
    return rig;
  };
  const { points } = await cancelledRig().runWithCrashes([]);
  for (const [index, point] of points.entries()) {
    const rig = cancelledRig();
    const { outcome } = await rig.runWithCrashes([index + 1]);
    expect(outcome, point).toMatchObject({ state: 'cancelled', problem: { code: 'E_CANCELLED' } });
    expect(rig.world.snapshot(), point).toEqual({});
    expect(rig.bodiesOf('step-intent').length, point).toBeLessThanOrEqual(2);
    expect(rig.bodiesOf('finished').length, point).toBe(1);
  }
  process.stdout.write(`a cancelled run: ${points.length} crash points\n`);
});
