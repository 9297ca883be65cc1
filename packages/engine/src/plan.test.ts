import { type DesiredResource, PlanDocument, ridOf } from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import { describe, expect, test } from 'vitest';
import { SagaRig } from './testing/saga-rig.ts';
import type { Script } from './testing/scripted-guest.ts';

const TIME = { timeout: 120_000 };

const PLAN = { mode: 'plan' } as const;

function box(name: string, size: number) {
  return [name, { size, colour: 'blue', whole: true, lastOp: 'earlier/1' }] as const;
}

/** A resource of the rig's deployment in its committed record. */
function recorded(kind: string, name: string, hash = '1'): DesiredResource {
  const place = { realm: 'default', deployment: 'web' };
  const rid = ridOf(nodeVerifier, { ...place, kind, name });
  return { rid, kind, name, spec: {}, specHash: hash.repeat(64) };
}

/** Runs the plan to its commit, which holds nothing but its document. */
async function planOf(rig: SagaRig): Promise<PlanDocument> {
  const outcome = await rig.run();
  expect(outcome.state).toBe('committed');
  const [committed] = rig.bodiesOf('committed');
  expect(committed?.desired).toEqual([]);
  return PlanDocument.parse(JSON.parse(committed?.output ?? ''));
}

function changesOf(plan: PlanDocument) {
  return plan.steps.map(({ name, action, differs }) => [name, action, ...differs]);
}

describe('a plan', () => {
  test('keeps what the deployment has where the script copes with a refusal of it', async () => {
    const rig = new SagaRig(async ({ call }) => {
      await call('box.ensure', 'old', { size: 0 }).then(undefined, () => undefined);
    }, PLAN);
    rig.world.boxes.set(...box('old', 5));
    rig.committed = [recorded('box', 'old'), recorded('box', 'gone')];
    const plan = await planOf(rig);
    expect(changesOf(plan)).toEqual([['old', 'refuse']]);
    expect(plan.removals).toMatchObject([{ name: 'gone' }]);
  });

  test('says of every call what it would do, and does nothing', async () => {
    const rig = new SagaRig(async ({ call, log }) => {
      log('planning');
      await call('box.ensure', 'new', { size: 2 });
      await call('box.ensure', 'old', { size: 9 });
      await call('box.ensure', 'same', { size: 5 });
      await call('box.paint', 'same', { colour: 'red' });
      return await call('box.peek', 'calm');
    }, PLAN);
    for (const [name, state] of [box('old', 5), box('same', 5), box('calm', 1)])
      rig.world.boxes.set(name, state);
    rig.committed = [recorded('box', 'old')];
    const before = rig.world.snapshot();
    const plan = await planOf(rig);
    expect(plan).toMatchObject({
      v: 1,
      run: rig.journal.run,
      realm: 'default',
      deployment: 'web',
      generation: 1,
      state: 'complete',
      removals: [],
    });
    expect(changesOf(plan)).toEqual([
      ['new', 'create'],
      ['old', 'update', 'size'],
      ['same', 'no-op'],
      ['same', 'update'],
      ['calm', 'read'],
    ]);
    expect(plan.steps.map(({ specHashBefore }) => specHashBefore !== undefined)).toEqual([
      false,
      true,
      false,
      false,
      false,
    ]);
    expect(rig.world.snapshot()).toEqual(before);
    expect(rig.world.effects).toEqual([]);
  });

  test('is recorded as reads that declare nothing and touch nothing', async () => {
    const rig = new SagaRig(async ({ call }) => await call('box.ensure', 'a', { size: 2 }), PLAN);
    await planOf(rig);
    expect(rig.bodiesOf('step-intent')).toMatchObject([
      { class: 'read', action: 'create', rid: null, desired: null, before: null, name: 'a' },
    ]);
    expect(rig.bodiesOf('step-result')).toMatchObject([{ result: rig.handle('a') }]);
  });

  test('plans a step in the world that the steps before it would leave', async () => {
    const rig = new SagaRig(async ({ call }) => {
      const base = await call('box.ensure', 'base', { size: 2 });
      await call('box.ensure', 'top', { on: base });
      await call('box.ensure', 'base', { size: 2 });
      await call('box.ensure', 'base', { size: 3 });
      await call('box.ensure', 'old', { size: 9 });
      await call('box.ensure', 'old', { size: 5 });
    }, PLAN);
    rig.world.boxes.set(...box('old', 5));
    expect(changesOf(await planOf(rig))).toEqual([
      ['base', 'create'],
      ['top', 'create'],
      ['base', 'no-op'],
      ['base', 'update', 'size'],
      ['old', 'update', 'size'],
      ['old', 'update', 'size'],
    ]);
  });

  test('lists what the deployment would hold no longer, and keeps data unless it is signed away', async () => {
    const rig = new SagaRig(async ({ call }) => await call('box.ensure', 'stays'), {
      ...PLAN,
      deleteData: ['scratch'],
    });
    rig.committed = [
      recorded('volume', 'scratch'),
      recorded('volume', 'data'),
      recorded('box', 'stays'),
      recorded('box', 'gone'),
    ];
    // Of a failed run that was kept, and volumes that were declared once.
    rig.remains = [
      recorded('box', 'kept'),
      recorded('box', 'kept', '2'),
      recorded('box', 'stays'),
      recorded('volume', 'ancient'),
    ];
    expect((await planOf(rig)).removals).toEqual([
      { kind: 'box', name: 'gone', action: 'remove' },
      { kind: 'box', name: 'kept', action: 'remove' },
      { kind: 'volume', name: 'ancient', action: 'retain' },
      { kind: 'volume', name: 'data', action: 'retain' },
      { kind: 'volume', name: 'scratch', action: 'delete-data' },
    ]);
  });

  test.each<[string, Script, string]>([
    ['what cannot be probed', async ({ call }) => await call('box.run', 'a'), 'step 1, box.run a'],
    [
      'a wait for a condition',
      async ({ call }) => await call('waitFor', null, { label: 'up' }),
      'step 1, waitFor',
    ],
    [
      'a reading of what is only planned',
      async ({ call }) => {
        await call('box.ensure', 'a');
        await call('box.peek', 'a');
      },
      'step 2, box.peek a',
    ],
    [
      'the undo of another run',
      async ({ call }) => await call('run.kept', null, { run: `run_${'c'.repeat(26)}` }),
      'step 1, run.kept',
    ],
  ])('ends as partial at %s', async (_what, script, reason) => {
    const rig = new SagaRig(async (api) => {
      await script(api);
      await api.call('box.ensure', 'later');
    }, PLAN);
    rig.committed = [recorded('box', 'later')];
    const plan = await planOf(rig);
    expect(plan.state).toBe('partial');
    expect(plan.reason).toContain(reason);
    expect(plan.steps.map(({ name }) => name)).not.toContain('later');
    expect(plan.removals).toEqual([]);
    expect(rig.world.effects).toEqual([]);
  });

  test('does not sleep', async () => {
    const rig = new SagaRig(async ({ call }) => {
      await call('sleep', null, { duration: '7d' });
      await call('box.ensure', 'a');
    }, PLAN);
    const begunMs = rig.clock.nowMs();
    const plan = await planOf(rig);
    expect(plan.steps.map(({ verb, action }) => [verb, action])).toEqual([
      ['sleep', 'wait'],
      ['box.ensure', 'create'],
    ]);
    expect(rig.clock.nowMs() - begunMs).toBeLessThan(60_000);
  });

  test('is held to what was signed for, like an apply', async () => {
    const codes: string[] = [];
    const rig = new SagaRig(
      async ({ call }) => {
        for (const [verb, name, size] of [
          ['box.ensure', 'a', 3],
          ['box.ensure', 'b', 3],
          ['box.ensure', 'a', 1],
          ['box.ensure', 'b', 3],
          ['crate.ensure', 'c', 1],
        ] as const) {
          await call(verb, name, { size }).then(
            () => codes.push('planned'),
            (error) => codes.push(error.code),
          );
        }
      },
      {
        ...PLAN,
        limits: { resources: { milliCpus: 0, memoryBytes: 0, storageBytes: 4 } },
      },
    );
    const plan = await planOf(rig);
    expect(codes).toEqual(['planned', 'E_RESOURCES', 'planned', 'planned', 'E_SAL_UNAVAILABLE']);
    expect(plan.steps.map(({ action }) => action)).toEqual([
      'create',
      'refuse',
      'update',
      'create',
      'refuse',
    ]);
  });

  test('fails when the script does, with nothing to undo', async () => {
    const rig = new SagaRig(async ({ call }) => {
      await call('box.ensure', 'a');
      await call('box.ensure', 'b', { blind: true });
    }, PLAN);
    expect(await rig.run()).toMatchObject({
      state: 'failed',
      problem: { code: 'E_IMAGE', where: { step: 2 } },
    });
    expect(rig.bodiesOf('undo-intent')).toEqual([]);
    expect(rig.bodiesOf('finished')).toMatchObject([{ undone: 0, leftovers: [] }]);
  });

  test('plans calls that were made together in the order they were made', async () => {
    const rig = new SagaRig(async ({ call }) => {
      await Promise.all(['c', 'a', 'b'].map((name) => call('box.ensure', name)));
    }, PLAN);
    expect(changesOf(await planOf(rig)).map(([name]) => name)).toEqual(['c', 'a', 'b']);
  });

  test('is let go between two steps when its runner ends', async () => {
    const rig = new SagaRig(async ({ call }) => {
      await call('box.ensure', 'a');
      await call('box.ensure', 'b');
    }, PLAN);
    rig.world.onPlan = () => rig.drain.abort();
    expect(await rig.run()).toEqual({ state: 'released' });
    expect(rig.bodiesOf('step-result').map(({ step }) => step)).toEqual([1]);
  });

  test('is cancelled with nothing to undo', async () => {
    const rig = new SagaRig(async ({ call }) => {
      await call('box.ensure', 'a');
      await call('box.ensure', 'b');
    }, PLAN);
    rig.world.onPlan = () => rig.cancel.abort();
    expect(await rig.run()).toMatchObject({ state: 'cancelled' });
    expect(rig.bodiesOf('finished')).toMatchObject([{ undone: 0, leftovers: [] }]);
  });

  test('comes out the same when its guest is lost on the way', async () => {
    const script: Script = async ({ call }) => {
      for (const size of [2, 3, 3]) await call('box.ensure', 'a', { size });
      await call('box.ensure', 'b', { size: 2 }).then(undefined, () => undefined);
    };
    const resources = { milliCpus: 0, memoryBytes: 0, storageBytes: 4 };
    const limited = { ...PLAN, limits: { resources } };
    const calm = await planOf(new SagaRig(script, limited));
    expect(changesOf(calm).at(-1)).toEqual(['b', 'refuse']);
    const rig = new SagaRig(script, limited);
    rig.guestDeaths = [4];
    expect(await planOf(rig)).toEqual(calm);
    expect(rig.guests.length).toBe(2);
  });

  test('comes out the same after a crash at any point, and after a second one', TIME, async () => {
    const rigOf = () => {
      const rig = new SagaRig(async ({ call, log }) => {
        const base = await call('box.ensure', 'base', { size: 2 });
        log('planned', { base });
        const [top] = await Promise.all([
          call('box.ensure', 'top', { on: base }),
          call('box.ensure', 'old', { size: 9 }),
        ]);
        await call('box.ensure', 'bad', { blind: true }).then(undefined, () => undefined);
        await call('sleep', null, { duration: '3h' });
        await call('box.paint', 'old', { colour: 'red' });
        await call('box.ensure', 'base', { size: 4, on: top });
        await call('box.run', 'old');
      }, PLAN);
      rig.world.boxes.set(...box('old', 5));
      rig.committed = [recorded('box', 'old')];
      return rig;
    };
    const calm = rigOf();
    const { outcome, points } = await calm.runWithCrashes([]);
    for (let first = 1; first <= points.length; first++) {
      const once = rigOf();
      const resumed = await once.runWithCrashes([first]);
      expect(resumed.outcome, `crash at ${points[first - 1]}`).toEqual(outcome);
      for (let second = 1; second <= resumed.points.length; second++) {
        const twice = rigOf();
        const again = await twice.runWithCrashes([first, second]);
        const place = `crash at ${points[first - 1]}, then at ${resumed.points[second - 1]}`;
        expect(again.outcome, place).toEqual(outcome);
        expect(twice.world.effects, place).toEqual([]);
        expect(Object.keys(twice.world.snapshot()), place).toEqual(['old']);
      }
    }
    expect(points.length).toBeGreaterThan(5);
  });
});

describe('the hash of a plan', () => {
  const script: Script = async ({ call }) => await call('box.ensure', 'old', { size: 9 });

  async function hashOf(change: (rig: SagaRig) => void, generation = 1): Promise<string> {
    const rig = new SagaRig(script, { ...PLAN, generation });
    rig.world.boxes.set(...box('old', 5));
    change(rig);
    return (await planOf(rig)).hash ?? '';
  }

  test('is that of the same plan under a later generation', async () => {
    expect(await hashOf(() => undefined, 7)).toBe(await hashOf(() => undefined));
  });

  test('is another when the world would be changed otherwise, or from another start', async () => {
    const hashes = [
      await hashOf(() => undefined),
      await hashOf(({ world }) => world.boxes.clear()),
      await hashOf(({ world }) => world.boxes.set(...box('old', 9))),
      await hashOf((rig) => {
        rig.committed = [recorded('box', 'old')];
      }),
      await hashOf((rig) => {
        rig.committed = [recorded('box', 'old', '2')];
      }),
      await hashOf((rig) => {
        rig.committed = [recorded('box', 'gone')];
      }),
      await hashOf((rig) => {
        rig.remains = [recorded('box', 'kept')];
      }),
    ];
    expect(new Set(hashes).size).toBe(hashes.length);
  });
});
