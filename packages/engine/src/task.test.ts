import type { DesiredResource } from '@hypha/protocol';
import { describe, expect, test } from 'vitest';
import { SagaRig } from './testing/saga-rig.ts';
import type { Script } from './testing/scripted-guest.ts';

/** A task on a deployment that has one box, `old`. */
function taskRig(script: Script): SagaRig {
  const rig = new SagaRig(script, { mode: 'task' });
  const { $rid: rid, kind, name } = rig.handle('old');
  const resource: DesiredResource = { rid, kind, name, spec: {}, specHash: '1'.repeat(64) };
  rig.committed = [resource];
  rig.world.boxes.set('old', { size: 5, colour: 'blue', whole: true, lastOp: 'earlier/1' });
  return rig;
}

describe('a task', () => {
  test('works on what its deployment has, and declares nothing at its commit', async () => {
    const rig = taskRig(async ({ call }) => {
      await call('box.paint', 'old', { colour: 'red' });
      await call('box.run', 'old');
      return await call('box.peek', 'old');
    });
    expect(await rig.run()).toEqual({ state: 'committed', output: '"red"' });
    expect(rig.world.effects).toEqual(['paint old red', 'run old']);
    expect(rig.bodiesOf('committed')).toMatchObject([{ desired: [] }]);
  });

  test('may not declare, not even what is there', async () => {
    const rig = taskRig(async ({ call }) => await call('box.ensure', 'old', { size: 5 }));
    expect(await rig.run()).toMatchObject({
      state: 'failed',
      problem: {
        code: 'E_ARGUMENT',
        detail: expect.stringContaining('a task declares nothing'),
        hint: expect.stringContaining('box.get'),
      },
    });
    expect(rig.world.effects).toEqual([]);
  });

  test('declares nothing where its script copes with that it may not', async () => {
    const rig = taskRig(async ({ call }) => {
      await call('box.ensure', 'old', { size: 5 }).then(undefined, () => undefined);
      await call('box.run', 'old');
    });
    expect((await rig.run()).state).toBe('committed');
    expect(rig.bodiesOf('committed')).toMatchObject([{ desired: [] }]);
  });

  test('that fails is undone', async () => {
    const rig = taskRig(async ({ call }) => {
      await call('box.paint', 'old', { colour: 'red' });
      throw new Error('boom');
    });
    expect((await rig.run()).state).toBe('failed');
    expect(rig.world.snapshot()).toMatchObject({ old: { colour: 'blue' } });
  });
});
