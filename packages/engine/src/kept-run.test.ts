import { HyphaError, type Json } from '@hypha/protocol';
import { describe, expect, test } from 'vitest';
import { ENGINE_LIMITS } from './engine-limits.ts';
import { SagaRig } from './testing/saga-rig.ts';
import type { Script } from './testing/scripted-guest.ts';

const TIME = { timeout: 120_000 };

const KEPT = `run_${'a'.repeat(26)}`;

const OLD = ['old', { size: 5, colour: 'blue', whole: true, lastOp: 'earlier/1' }] as const;

interface KeptStep {
  readonly step: number;
  readonly kind: string;
  readonly name: string;
}

/** As `undo(run)` of the prelude does it. */
const UNDO: Script = async ({ call }) => {
  const leftovers: Json[] = [];
  let tried = 0;
  for (;;) {
    const kept = (await call('run.kept', null, { run: KEPT })) as unknown as KeptStep[];
    for (const { step, kind, name } of kept) {
      const answer = await call('run.undo', null, { run: KEPT, step });
      const { leftover } = answer as { leftover: string | null };
      if (leftover !== null) leftovers.push({ kind, name, reason: leftover });
    }
    tried += kept.length;
    if (kept.length < ENGINE_LIMITS.keptStepsMax) break;
  }
  return { undone: tried - leftovers.length, leftovers };
};

const FAILS: Script = async ({ call }) => {
  await call('box.ensure', 'old', { size: 9 });
  await call('box.ensure', 'same', { size: 5 });
  await call('box.ensure', 'new', { size: 2 });
  await call('box.paint', 'old', { colour: 'red' });
  await call('box.run', 'old');
  await call('box.peek', 'old');
  await call('box.ensure', 'bad', { broken: true });
};

/** A run that failed and was kept. */
async function keptRig(script: Script = FAILS, secrets: Record<string, string> = {}) {
  const rig = new SagaRig(script, { onFailure: 'keep' });
  rig.secrets = secrets;
  rig.world.boxes.set(...OLD);
  rig.world.boxes.set('same', { ...OLD[1], lastOp: 'earlier/2' });
  expect((await rig.run()).state).toBe('failed');
  rig.world.effects.length = 0;
  return rig;
}

async function taskRig(script: Script = UNDO, kept?: SagaRig): Promise<SagaRig> {
  return new SagaRig(script, { mode: 'task' }, kept ?? (await keptRig()));
}

describe('the undo of a kept run', () => {
  test('brings back what was before it, newest first, under the mark of that run', async () => {
    const rig = await taskRig();
    const ops: string[] = [];
    rig.world.onUndo = ({ op }) => ops.push(op);
    expect(await rig.run()).toEqual({
      state: 'committed',
      output: JSON.stringify({ undone: 4, leftovers: [] }),
    });
    expect(rig.world.snapshot()).toEqual({
      old: { size: 5, colour: 'blue', whole: true },
      same: { size: 5, colour: 'blue', whole: true },
    });
    expect(ops).toEqual([`${KEPT}/7`, `${KEPT}/3`, `${KEPT}/1`]);
    expect(rig.world.effects).toEqual([
      'delete bad',
      'paint old blue',
      'delete new',
      'restore old',
    ]);
  });

  test('lists what changed something, in the reverse of the order it ended in', async () => {
    const rig = await taskRig(async ({ call }) => await call('run.kept', null, { run: KEPT }));
    await rig.run();
    const [committed] = rig.bodiesOf('committed');
    expect(JSON.parse(committed?.output ?? '')).toEqual([
      { step: 7, verb: 'box.ensure', kind: 'box', name: 'bad' },
      { step: 4, verb: 'box.paint', kind: 'box', name: 'old' },
      { step: 3, verb: 'box.ensure', kind: 'box', name: 'new' },
      { step: 1, verb: 'box.ensure', kind: 'box', name: 'old' },
    ]);
  });

  test('has an intent on each resource durable before it touches it', async () => {
    const rig = await taskRig();
    const durable: (string | null)[][] = [];
    rig.world.onUndo = () => durable.push(rig.bodiesOf('step-intent').map(({ rid }) => rid));
    await rig.run();
    const [bad, old, made] = ['bad', 'old', 'new'].map((name) => rig.handle(name).$rid);
    expect(durable).toEqual([
      [null, bad],
      [null, bad, old, made],
      [null, bad, old, made, old],
    ]);
  });

  test('reports what is left over, and goes on', async () => {
    const kept = await keptRig(async ({ call }) => {
      await call('box.ensure', 'a');
      await call('box.ensure', 'b', { sticky: true });
      throw new Error('boom');
    });
    const rig = await taskRig(UNDO, kept);
    const outcome = await rig.run();
    expect(JSON.parse('output' in outcome ? outcome.output : '')).toEqual({
      undone: 1,
      leftovers: [{ kind: 'box', name: 'b', reason: 'E_SAL: box b is stuck' }],
    });
    expect(Object.keys(rig.world.snapshot())).toEqual(['b', 'old', 'same']);
  });

  test('ends the same after a crash at any point, and after a second one', TIME, async () => {
    const script: Script = async ({ call }) => {
      await call('box.ensure', 'old', { size: 9 });
      await call('box.paint', 'old', { colour: 'red' });
      await call('box.ensure', 'bad', { broken: true });
    };
    const keptTaskRig = async () => await taskRig(UNDO, await keptRig(script));
    const calm = await keptTaskRig();
    const { outcome, points } = await calm.runWithCrashes([]);
    for (let first = 1; first <= points.length; first++) {
      const once = await keptTaskRig();
      const resumed = await once.runWithCrashes([first]);
      for (let second = 0; second <= resumed.points.length; second++) {
        const rig = await keptTaskRig();
        const crashes = second === 0 ? [first] : [first, second];
        const place = `crash at ${crashes.join(' and ')} of ${points.join(', ')}`;
        expect((await rig.runWithCrashes(crashes)).outcome, place).toEqual(outcome);
        expect(rig.world.snapshot(), place).toEqual(calm.world.snapshot());
        for (const effect of calm.world.effects) expect(rig.world.count(effect), place).toBe(1);
        expect(rig.world.violations, place).toEqual([]);
      }
    }
    expect(points.length).toBeGreaterThan(10);
  });

  test('needs the capability of every verb it undoes, before it undoes any', async () => {
    const kept = await keptRig();
    const rig = new SagaRig(UNDO, { mode: 'task', caps: ['box'] }, kept);
    rig.payload.caps.splice(0, 1, 'volume');
    expect(await rig.run()).toMatchObject({
      state: 'failed',
      problem: { code: 'E_CAPABILITY', hint: expect.stringContaining('box') },
    });
    expect(rig.world.effects).toEqual([]);
  });

  test('needs that capability for a single step as well', async () => {
    const kept = await keptRig();
    const script: Script = async ({ call }) => await call('run.undo', null, { run: KEPT, step: 3 });
    const rig = new SagaRig(script, { mode: 'task' }, kept);
    rig.payload.caps.splice(0, 1, 'volume');
    expect(await rig.run()).toMatchObject({ state: 'failed', problem: { code: 'E_CAPABILITY' } });
    expect(rig.world.effects).toEqual([]);
  });

  test.each<[string, number]>([
    ['that changed nothing', 2],
    ['that cannot be undone', 5],
    ['that only looked', 6],
    ['that it does not have', 8],
  ])('refuses a step %s', async (_what, step) => {
    const rig = await taskRig(
      async ({ call }) => await call('run.undo', null, { run: KEPT, step }),
    );
    expect(await rig.run()).toMatchObject({
      state: 'failed',
      problem: { code: 'E_NOT_FOUND', detail: expect.stringContaining(`step ${step}`) },
    });
    expect(rig.world.effects).toEqual([]);
  });

  test('refuses a run that is not kept', async () => {
    const other = `run_${'c'.repeat(26)}`;
    const rig = await taskRig(async ({ call }) => await call('run.kept', null, { run: other }));
    expect(await rig.run()).toMatchObject({ state: 'failed', problem: { code: 'E_NOT_FOUND' } });
  });

  test('is for tasks alone', async () => {
    const rig = new SagaRig(UNDO, {}, await keptRig());
    expect(await rig.run()).toMatchObject({
      state: 'failed',
      problem: { code: 'E_ARGUMENT', hint: `hypha run undo ${KEPT}` },
    });
    expect(rig.world.effects).toEqual([]);
  });

  test('reads the secrets that the steps were made with, not those of the task', async () => {
    const kept = await keptRig(
      async ({ call }) => {
        await call('box.ensure', 'a', { sealed: { $secret: 'token' } });
        throw new Error('boom');
      },
      { token: 'b'.repeat(32) },
    );
    const rig = await taskRig(UNDO, kept);
    expect(await rig.run()).toMatchObject({ output: '{"undone":1,"leftovers":[]}' });
    expect(rig.world.snapshot()).not.toHaveProperty('a');
  });

  test('stops at a cancel, and is done again by the next task', async () => {
    const kept = await keptRig();
    const rig = await taskRig(UNDO, kept);
    rig.world.onUndo = () => rig.cancel.abort();
    expect(await rig.run()).toMatchObject({ state: 'cancelled' });
    expect(rig.bodiesOf('step-result').map(({ step }) => step)).toEqual([1]);
    expect(rig.world.snapshot()).toHaveProperty('new');
    rig.world.onUndo = undefined;
    const next = await taskRig(UNDO, kept);
    expect(await next.run()).toMatchObject({ output: '{"undone":4,"leftovers":[]}' });
    expect(Object.keys(next.world.snapshot())).toEqual(['old', 'same']);
  });

  test('is let go between two steps when its runner ends', async () => {
    const rig = await taskRig();
    rig.world.onUndo = () => rig.drain.abort();
    expect(await rig.run()).toEqual({ state: 'released' });
    expect(rig.bodiesOf('step-result').map(({ step }) => step)).toEqual([1, 2]);
    expect(rig.world.effects).toEqual(['delete bad']);
  });

  test('is named in parts, without what was tried before', async () => {
    const kept = await keptRig(async ({ call }) => {
      await call('box.ensure', 'a', { sticky: true });
      await call('box.ensure', 'b');
      throw new Error('boom');
    });
    const rig = await taskRig(async ({ call }) => {
      const seen: unknown[] = [];
      for (const step of [2, 1]) {
        seen.push(await call('run.kept', null, { run: KEPT }));
        await call('run.undo', null, { run: KEPT, step });
      }
      return [...seen, await call('run.kept', null, { run: KEPT })].map((steps) =>
        (steps as KeptStep[]).map(({ name }) => name),
      );
    }, kept);
    expect(await rig.run()).toMatchObject({ output: '[["b","a"],["a"],[]]' });
  });

  test('of thousands of steps is done in parts', TIME, async () => {
    const count = ENGINE_LIMITS.keptStepsMax + 1;
    const kept = await keptRig(async ({ call }) => {
      await call('box.ensure', 'a');
      throw new Error('boom');
    });
    const [intent] = kept.bodiesOf('step-intent');
    const [event] = kept.journal.events;
    if (intent === undefined || event === undefined) throw new Error('nothing was kept');
    const many = Array.from({ length: count }, (_, index) => {
      return { ...event, body: { ...intent, step: index + 1 } };
    });
    const rig = await taskRig(async ({ call }) => {
      const kept = (await call('run.kept', null, { run: KEPT })) as unknown as KeptStep[];
      return [kept.length, kept[0]?.step];
    });
    rig.journal.kept.set(KEPT, many);
    expect(await rig.run()).toMatchObject({ output: `[${count - 1},${count}]` });
  });

  test.each<[string, 'E_UNAVAILABLE' | 'E_INTERNAL']>([
    ['halts when the journal is lost while it is read', 'E_UNAVAILABLE'],
    ['fails when the journal cannot be read', 'E_INTERNAL'],
  ])('%s', async (_what, code) => {
    const rig = await taskRig();
    const error = new HyphaError(code, 'no answer');
    rig.journal.kept.get = () => {
      throw error;
    };
    if (code === 'E_UNAVAILABLE') await expect(rig.run()).rejects.toBe(error);
    else expect(await rig.run()).toMatchObject({ state: 'failed', problem: { code } });
    expect(rig.world.effects).toEqual([]);
  });

  test('touches nothing more when the journal is lost', async () => {
    const rig = await taskRig();
    const lost = new HyphaError('E_STALE_EPOCH', 'another owns it');
    rig.journal.refuseNext = { type: 'step-intent', error: lost };
    await expect(rig.run()).rejects.toBe(lost);
    expect(rig.world.effects).toEqual([]);
  });
});
