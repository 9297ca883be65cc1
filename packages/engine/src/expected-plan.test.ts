import { type JournalBody, PlanDocument, type ScriptPayloadInput } from '@hypha/protocol';
import { describe, expect, test } from 'vitest';
import { Fuse } from './testing/fuse.ts';
import { NODE, SagaRig } from './testing/saga-rig.ts';
import type { Script } from './testing/scripted-guest.ts';

const TIME = { timeout: 120_000 };

const OLD = ['old', { size: 5, colour: 'blue', whole: true, lastOp: 'earlier/1' }] as const;

const SCRIPT: Script = async ({ call, log }) => {
  log('begins');
  const made = await call('box.ensure', 'new', { size: 2 });
  await call('box.ensure', 'old', { size: 9, on: made });
  await call('box.paint', 'old', { colour: 'red' });
  return 'done';
};

type Change = (rig: SagaRig) => void;

/** The plan of `script` in a world of its own. */
async function planOf(script: Script, change: Change = () => undefined): Promise<PlanDocument> {
  const rig = new SagaRig(script, { mode: 'plan' });
  rig.world.boxes.set(...OLD);
  change(rig);
  const outcome = await rig.run();
  return PlanDocument.parse(JSON.parse('output' in outcome ? outcome.output : ''));
}

/** An apply of `script` that expects this plan. */
function applyRig(
  script: Script,
  { hash }: PlanDocument,
  changes: Partial<ScriptPayloadInput> = {},
): SagaRig {
  const expect = hash === undefined ? {} : { [NODE]: hash };
  const rig = new SagaRig(script, { generation: 2, expect, ...changes });
  rig.world.boxes.set(...OLD);
  return rig;
}

function typesOf(bodies: readonly JournalBody[]): string[] {
  return bodies.map(({ type }) => type);
}

describe('an apply that expects a plan', () => {
  test('goes on when the world is as planned, and records nothing of asking', async () => {
    const rig = applyRig(SCRIPT, await planOf(SCRIPT));
    expect(await rig.run()).toEqual({ state: 'committed', output: '"done"' });
    expect(rig.world.effects).toEqual(['create new', 'size new 2', 'size old 9', 'paint old red']);
    const plain = new SagaRig(SCRIPT, { generation: 2 });
    plain.world.boxes.set(...OLD);
    await plain.run();
    expect(rig.journal.bodies()).toEqual(plain.journal.bodies());
    expect(rig.guests.map(({ closed }) => closed)).toEqual([true, true]);
  });

  test.each<[string, Change]>([
    ['a resource is gone', ({ world }) => void world.boxes.delete('old')],
    ['a resource is there already', ({ world }) => void world.boxes.set('new', OLD[1])],
    [
      'a resource is as wanted already',
      ({ world }) => void world.boxes.set('old', { ...OLD[1], size: 9 }),
    ],
    [
      'the record holds another resource',
      (rig) => {
        const { $rid: rid, kind, name } = rig.handle('other');
        rig.committed = [{ rid, kind, name, spec: {}, specHash: '1'.repeat(64) }];
      },
    ],
    [
      'the record holds another revision of one',
      (rig) => {
        const { $rid: rid, kind, name } = rig.handle('old');
        rig.committed = [{ rid, kind, name, spec: {}, specHash: '1'.repeat(64) }];
      },
    ],
  ])('is refused when %s, and has touched nothing', async (_what, change) => {
    const rig = applyRig(SCRIPT, await planOf(SCRIPT));
    change(rig);
    const before = rig.world.snapshot();
    expect(await rig.run()).toMatchObject({
      state: 'failed',
      problem: { code: 'E_PLAN_CHANGED' },
    });
    expect(rig.world.snapshot()).toEqual(before);
    expect(rig.world.effects).toEqual([]);
    expect(typesOf(rig.journal.bodies())).toEqual(['started', 'finished']);
  });

  test.each<[string, Script, Partial<ScriptPayloadInput>]>([
    ['input', SCRIPT, { input: { replicas: 3 } }],
    [
      'script',
      SCRIPT,
      { script: { engine: 'quickjs-es2023', sha256: '2'.repeat(64), source: 'other' } },
    ],
    ['data to delete', SCRIPT, { deleteData: ['data'] }],
  ])('is refused with another %s, though it would do the same', async (_what, script, changes) => {
    const plan = await planOf(script);
    const rig = applyRig(script, plan, changes);
    rig.expectedPlan = plan;
    expect(await rig.run()).toMatchObject({
      state: 'failed',
      problem: {
        code: 'E_PLAN_CHANGED',
        detail: expect.stringContaining('script, input or deleteData'),
        details: { difference: [] },
      },
    });
    expect(rig.world.effects).toEqual([]);
  });

  test('says of what reads alike in what it is not', async () => {
    const making =
      (size: number): Script =>
      async ({ call }) => {
        await call('box.ensure', 'new', { size });
        return 'done';
      };
    const plan = await planOf(making(2));
    const rig = applyRig(making(3), plan);
    rig.expectedPlan = plan;
    expect(await rig.run()).toMatchObject({
      problem: { detail: expect.stringContaining('was create, is create with another spec') },
    });
  });

  test('shows what is planned otherwise now', async () => {
    const plan = await planOf(SCRIPT, (rig) => {
      const { $rid: rid, kind, name } = rig.handle('gone');
      rig.committed = [{ rid, kind, name, spec: {}, specHash: '1'.repeat(64) }];
    });
    const rig = applyRig(SCRIPT, plan);
    rig.expectedPlan = plan;
    rig.world.boxes.set('old', { ...OLD[1], size: 9 });
    const outcome = await rig.run();
    expect(outcome).toMatchObject({
      problem: {
        code: 'E_PLAN_CHANGED',
        detail: expect.stringContaining('step 2, box old was update (size), is no-op, and 1 more'),
        details: {
          expected: plan.hash,
          found: expect.stringMatching(/^[0-9a-f]{64}$/),
          difference: [
            {
              step: 2,
              was: { name: 'old', action: 'update', differs: ['size'] },
              now: { name: 'old', action: 'no-op', differs: [] },
            },
            { was: { kind: 'box', name: 'gone', action: 'remove' }, now: null },
          ],
        },
      },
    });
  });

  test('shows what fits of a long difference', async () => {
    const plan = await planOf(SCRIPT);
    const [first] = plan.steps;
    const steps = Array.from({ length: 500 }, (_, index) => ({ ...first, step: index + 10 }));
    const hash = '3'.repeat(64);
    const rig = applyRig(SCRIPT, { ...plan, hash });
    rig.expectedPlan = PlanDocument.parse({ ...plan, hash, steps });
    const outcome = await rig.run();
    const { details } = 'problem' in outcome ? outcome.problem : {};
    const { difference } = details as { difference: unknown[] };
    expect(difference.length).toBeGreaterThan(50);
    expect(difference.length).toBeLessThan(500);
  });

  test('is refused when the plan is not known here, without a difference', async () => {
    const plan = await planOf(SCRIPT);
    const rig = applyRig(SCRIPT, { ...plan, hash: '3'.repeat(64) });
    rig.expectedPlan = plan;
    expect(await rig.run()).toMatchObject({
      problem: { code: 'E_PLAN_CHANGED', details: { found: plan.hash, difference: [] } },
    });
  });

  test('is refused when only a real run can tell what it does', async () => {
    const script: Script = async ({ call }) => {
      await call('box.ensure', 'new');
      await call('box.run', 'new');
    };
    const rig = applyRig(script, await planOf(script));
    expect(await rig.run()).toMatchObject({
      state: 'failed',
      problem: { code: 'E_PLAN_PARTIAL', detail: expect.stringContaining('box.run new') },
    });
    expect(rig.world.effects).toEqual([]);
  });

  test('fails like its plan when the script does', async () => {
    const rig = applyRig(
      async ({ call }) => {
        await call('box.ensure', 'new', { blind: true });
      },
      await planOf(SCRIPT),
    );
    expect(await rig.run()).toMatchObject({ state: 'failed', problem: { code: 'E_IMAGE' } });
    expect(typesOf(rig.journal.bodies())).toEqual(['started', 'finished']);
  });

  test('is not held to the plan of another node', async () => {
    const rig = applyRig(SCRIPT, {} as PlanDocument, {
      expect: { [`node_${'c'.repeat(32)}`]: '3'.repeat(64) },
    });
    expect((await rig.run()).state).toBe('committed');
    expect(rig.guests.length).toBe(1);
  });

  test('is cancelled while it is asked, with nothing to undo', async () => {
    const rig = applyRig(SCRIPT, await planOf(SCRIPT));
    rig.world.onPlan = () => rig.cancel.abort();
    expect(await rig.run()).toMatchObject({ state: 'cancelled' });
    expect(typesOf(rig.journal.bodies())).toEqual(['started', 'finished']);
    expect(rig.guests.map(({ closed }) => closed)).toEqual([true]);
  });

  test('is let go while it is asked, and asked again', async () => {
    const rig = applyRig(SCRIPT, await planOf(SCRIPT));
    rig.world.onPlan = () => rig.drain.abort();
    expect(await rig.run()).toEqual({ state: 'released' });
    expect(typesOf(rig.journal.bodies())).toEqual(['started']);
  });
});

describe('an apply that expects a plan and crashed', () => {
  async function crashedRig(point: string): Promise<SagaRig> {
    const rig = applyRig(SCRIPT, await planOf(SCRIPT));
    const calm = applyRig(SCRIPT, await planOf(SCRIPT));
    const { points } = await calm.runWithCrashes([]);
    const at = points.lastIndexOf(point);
    expect(at, points.join(', ')).not.toBe(-1);
    const fuse = new Fuse(at + 1);
    expect(await Promise.race([rig.run(fuse), fuse.blown])).toBe('blown');
    return rig;
  }

  test('before its first intent is held to the plan again', async () => {
    const rig = await crashedRig('plan new');
    rig.world.boxes.set('new', OLD[1]);
    expect(await rig.run()).toMatchObject({ problem: { code: 'E_PLAN_CHANGED' } });
    expect(rig.world.effects).toEqual([]);
  });

  test('after its first intent is not: the world is its own by then', async () => {
    const rig = await crashedRig('apply begins new');
    expect(rig.bodiesOf('step-intent').length).toBe(1);
    // As a plan would see it, another hash.
    rig.world.boxes.set('old', { ...OLD[1], size: 9 });
    expect((await rig.run()).state).toBe('committed');
    expect(rig.world.snapshot()).toMatchObject({ new: { size: 2 }, old: { size: 9 } });
  });

  test('ends the same after a crash at any point, and after a second one', TIME, async () => {
    const plan = await planOf(SCRIPT);
    const calm = applyRig(SCRIPT, plan);
    const { outcome, points } = await calm.runWithCrashes([]);
    for (let first = 1; first <= points.length; first++) {
      const once = applyRig(SCRIPT, plan);
      const resumed = await once.runWithCrashes([first]);
      for (let second = 0; second <= resumed.points.length; second++) {
        const rig = applyRig(SCRIPT, plan);
        const crashes = second === 0 ? [first] : [first, second];
        const place = `crash at ${crashes.join(' and ')} of ${points.join(', ')}`;
        expect((await rig.runWithCrashes(crashes)).outcome, place).toEqual(outcome);
        expect(rig.world.snapshot(), place).toEqual(calm.world.snapshot());
        expect(rig.world.effects, place).toEqual(calm.world.effects);
      }
    }
    expect(points.length).toBeGreaterThan(10);
  });
});
