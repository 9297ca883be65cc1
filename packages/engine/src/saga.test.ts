import { HyphaError } from '@hypha/protocol';
import { describe, expect, test } from 'vitest';
import { SagaRig } from './testing/saga-rig.ts';

describe('a run that succeeds', () => {
  test('commits its output and everything it ensured in one append', async () => {
    const rig = new SagaRig(async ({ call, log }) => {
      log('making', { count: 2 });
      await call('box.ensure', 'a', { size: 2 });
      await call('box.ensure', 'b', { size: 3 });
      return { done: true };
    });
    expect(await rig.run()).toEqual({ state: 'committed', output: '{"done":true}' });
    const [committed] = rig.bodiesOf('committed');
    expect(committed?.output).toBe('{"done":true}');
    expect(committed?.desired.map(({ name, spec }) => [name, spec])).toEqual([
      ['a', { size: 2 }],
      ['b', { size: 3 }],
    ]);
    expect(rig.world.effects).toEqual(['create a', 'size a 2', 'create b', 'size b 3']);
    expect(rig.journal.bodies().map((body) => body.type)).toEqual([
      'started',
      'log',
      'step-intent',
      'step-result',
      'step-intent',
      'step-result',
      'committed',
    ]);
  });

  test('makes the intent of every effect durable before the effect', async () => {
    const rig = new SagaRig(async ({ call }) => {
      await call('box.ensure', 'a');
      await call('box.paint', 'a', { colour: 'red' });
    });
    const seen: number[] = [];
    rig.world.onApply = ({ step }) => {
      const durable = rig.bodiesOf('step-intent').some((intent) => intent.step === step);
      if (durable) seen.push(step);
    };
    await rig.run();
    expect(seen).toEqual([1, 2]);
  });

  test('begins calls made together in the order made', async () => {
    const rig = new SagaRig(async ({ call }) => {
      const names = ['c', 'a', 'b'];
      await Promise.all(names.map((name) => call('box.ensure', name)));
    });
    await rig.run();
    expect(rig.bodiesOf('step-intent').map(({ step, name }) => [step, name])).toEqual([
      [1, 'c'],
      [2, 'a'],
      [3, 'b'],
    ]);
    expect(rig.world.violations).toEqual([]);
  });

  test('waits for calls the script did not wait for', async () => {
    const rig = new SagaRig(async ({ call }) => {
      void call('box.ensure', 'a').then(() => call('box.ensure', 'b'));
      return 'early';
    });
    expect(await rig.run()).toEqual({ state: 'committed', output: '"early"' });
    expect(Object.keys(rig.world.snapshot())).toEqual(['a', 'b']);
    expect(rig.bodiesOf('committed')[0]?.desired.map(({ name }) => name)).toEqual(['a', 'b']);
  });

  test('does nothing when it is run again after its commit', async () => {
    const rig = new SagaRig(async ({ call }) => await call('box.ensure', 'a'));
    const first = await rig.run();
    const events = rig.journal.events.length;
    rig.cancel.abort();
    expect(await rig.run()).toEqual(first);
    expect(rig.journal.events.length).toBe(events);
    expect(rig.guests.length).toBe(1);
  });

  test('retries a busy call inside its step and says so to its host', async () => {
    const rig = new SagaRig(async ({ call }) => await call('box.ensure', 'a', { busy: 3 }));
    expect((await rig.run()).state).toBe('committed');
    expect(rig.faults.map(({ phase, attempt }) => [phase, attempt])).toEqual([
      ['apply', 1],
      ['apply', 2],
      ['apply', 3],
    ]);
    expect(rig.bodiesOf('step-intent').length).toBe(1);
  });

  test('gives up on a call that stays busy, and the script may cope', async () => {
    const rig = new SagaRig(async ({ call }) => {
      try {
        return await call('box.ensure', 'a', { busy: 1_000 });
      } catch (error) {
        return (error as { code: string }).code;
      }
    });
    expect(await rig.run()).toEqual({ state: 'committed', output: '"E_UNAVAILABLE"' });
    expect(rig.faults.length).toBe(12);
    expect(rig.bodiesOf('committed')[0]?.desired).toEqual([]);
  });
});

describe('a step that fails', () => {
  test('leaves nothing behind when the script copes with it', async () => {
    const rig = new SagaRig(async ({ call }) => {
      try {
        await call('box.ensure', 'a', { broken: true });
      } catch {
        return await call('box.ensure', 'b');
      }
    });
    expect((await rig.run()).state).toBe('committed');
    expect(Object.keys(rig.world.snapshot())).toEqual(['b']);
    expect(rig.bodiesOf('committed')[0]?.desired.map(({ name }) => name)).toEqual(['b']);
    expect(rig.bodiesOf('undo-intent')).toEqual([]);
  });

  test('brings back what existed before when the script copes with it', async () => {
    const rig = new SagaRig(async ({ call }) => {
      try {
        await call('box.ensure', 'old', { size: 9, broken: true });
      } catch {
        return 'coped';
      }
    });
    rig.world.boxes.set('old', { size: 5, colour: 'blue', whole: true, lastOp: 'x/1' });
    const before = rig.world.snapshot();
    expect((await rig.run()).state).toBe('committed');
    expect(rig.world.snapshot()).toEqual(before);
  });

  test('leaves nothing behind when the run is signed to keep and commits after all', async () => {
    const rig = new SagaRig(
      async ({ call }) => {
        for (const name of ['a', 'b', 'b']) {
          try {
            await call('box.ensure', name, { broken: name === 'a' });
          } catch {
            await call('box.peek', name);
          }
        }
      },
      { onFailure: 'keep' },
    );
    rig.world.onUndo = () => expect(Object.keys(rig.world.snapshot())).toEqual(['a', 'b']);
    expect((await rig.run()).state).toBe('committed');
    expect(Object.keys(rig.world.snapshot())).toEqual(['b']);
  });

  test('and cannot be probed is not tried again', async () => {
    const rig = new SagaRig(async ({ call }) => await call('box.run', 'a'));
    rig.world.onApply = () => {
      throw new HyphaError('E_UNAVAILABLE', 'no answer');
    };
    expect(await rig.run()).toMatchObject({ state: 'failed', problem: { code: 'E_UNAVAILABLE' } });
    expect(rig.faults.length).toBe(1);
  });

  test('in its plan has no effect and is not undone', async () => {
    const rig = new SagaRig(async ({ call }) => {
      await call('box.ensure', 'a');
      await call('box.ensure', 'b', { blind: true });
    });
    expect(await rig.run()).toMatchObject({
      state: 'failed',
      problem: { code: 'E_IMAGE', where: { step: 2 } },
    });
    expect(rig.bodiesOf('undo-intent').map(({ step }) => step)).toEqual([1]);
  });

  test('without a code of its own says no more than that', async () => {
    const rig = new SagaRig(async ({ call }) => await call('box.ensure', 'a'));
    rig.world.onApply = () => {
      throw new TypeError('a secret of the adapter');
    };
    expect(await rig.run()).toMatchObject({
      state: 'failed',
      problem: { code: 'E_INTERNAL', detail: 'step 1, box.ensure, failed for no known reason' },
    });
    expect(rig.faults).toMatchObject([{ phase: 'apply', error: expect.any(TypeError) }]);
  });
});

describe('a run that fails', () => {
  test('undoes its steps newest first and leaves what existed before as it was', async () => {
    const rig = new SagaRig(async ({ call }) => {
      await call('box.ensure', 'old', { size: 9 });
      await call('box.ensure', 'same', { size: 5 });
      await call('box.ensure', 'new');
      throw new Error('boom');
    });
    rig.world.boxes.set('old', { size: 5, colour: 'blue', whole: true, lastOp: 'x/1' });
    rig.world.boxes.set('same', { size: 5, colour: 'green', whole: true, lastOp: 'x/2' });
    const before = rig.world.snapshot();
    const outcome = await rig.run();
    expect(outcome).toMatchObject({
      state: 'failed',
      problem: { code: 'E_SCRIPT', detail: 'boom', where: { line: 3, column: 7 } },
    });
    expect(rig.world.snapshot()).toEqual(before);
    expect(rig.bodiesOf('undo-intent').map(({ step }) => step)).toEqual([3, 1]);
    expect(rig.bodiesOf('finished')).toMatchObject([{ state: 'failed', undone: 2, leftovers: [] }]);
    expect(rig.world.effects.filter((effect) => effect.endsWith('same'))).toEqual([]);
  });

  test('names the step, the place and the hint of an error the script let through', async () => {
    const rig = new SagaRig(async ({ call }) => {
      await call('box.ensure', 'a');
      await call('box.ensure', 'b', { broken: true });
    });
    expect(await rig.run()).toMatchObject({
      state: 'failed',
      problem: {
        code: 'E_HEALTH',
        detail: 'box b fell apart',
        where: { line: 3, column: 7, step: 2 },
        hint: expect.stringContaining('hypha logs'),
      },
    });
    expect(rig.world.snapshot()).toEqual({});
  });

  test('fails for a rejected call nobody looked at, also after the script returned', async () => {
    const rig = new SagaRig(async ({ call }) => {
      void call('box.ensure', 'a', { broken: true });
      return 'fine';
    });
    expect(await rig.run()).toMatchObject({ state: 'failed', problem: { code: 'E_HEALTH' } });
    expect(rig.bodiesOf('committed')).toEqual([]);
  });

  test('does not take the word of a guest for a code that only the engine gives', async () => {
    const rig = new SagaRig(async () => {
      throw Object.assign(new Error('not really'), { code: 'E_CANCELLED' });
    });
    expect(await rig.run()).toMatchObject({ state: 'failed', problem: { code: 'E_SCRIPT' } });
  });

  test('keeps what it had where a script copes with an update that failed', async () => {
    const first = new SagaRig(async ({ call }) => {
      await call('box.ensure', 'web', { size: 1 });
      await call('box.ensure', 'gone');
    });
    await first.run();
    const second = new SagaRig(
      async ({ call }) => {
        const calls = ['web', 'new'].map((name) =>
          call('box.ensure', name, { size: 2, broken: true }),
        );
        await Promise.allSettled(calls);
      },
      { generation: 2 },
      first,
    );
    second.committed = [...(first.bodiesOf('committed')[0]?.desired ?? [])];
    expect((await second.run()).state).toBe('committed');
    const web = second.committed.filter(({ name }) => name === 'web');
    expect(second.bodiesOf('committed')[0]?.desired).toEqual(web);
    expect(second.world.snapshot()).toEqual(first.world.snapshot());
  });

  test('is told by the code of its step also in words of the script', async () => {
    const rig = new SagaRig(async ({ call }) => {
      try {
        await call('box.ensure', 'a', { broken: true });
      } catch (error) {
        const { code } = error as { code: string };
        throw Object.assign(new Error('the box would not stand'), { code });
      }
    });
    expect(await rig.run()).toMatchObject({
      state: 'failed',
      problem: { code: 'E_HEALTH', detail: 'the box would not stand', where: { step: 1 } },
    });
  });

  test('says why something is left over', async () => {
    const rig = new SagaRig(async ({ call }) => {
      await call('box.ensure', 'a', { sticky: true });
      await call('box.ensure', 'b');
      throw new Error('boom');
    });
    await rig.run();
    expect(rig.bodiesOf('finished')).toMatchObject([
      { undone: 1, leftovers: [{ kind: 'box', name: 'a', reason: 'E_SAL: box a is stuck' }] },
    ]);
    expect(Object.keys(rig.world.snapshot())).toEqual(['a']);
  });

  test('says that what was run in a thing that stays is not undone', async () => {
    const rig = new SagaRig(async ({ call }) => {
      await call('box.ensure', 'new');
      await call('box.run', 'new');
      await call('box.run', 'old');
      throw new Error('boom');
    });
    await rig.run();
    expect(rig.bodiesOf('finished')).toMatchObject([
      { undone: 1, leftovers: [{ name: 'old', reason: 'box.run is not undone' }] },
    ]);
  });

  test('keeps and names what it made when it was signed to', async () => {
    const rig = new SagaRig(
      async ({ call }) => {
        await call('box.ensure', 'a');
        await call('box.ensure', 'a', { size: 2 });
        throw new Error('boom');
      },
      { onFailure: 'keep' },
    );
    await rig.run();
    expect(rig.bodiesOf('undo-intent')).toEqual([]);
    expect(rig.bodiesOf('finished')).toMatchObject([
      { state: 'failed', undone: 0, leftovers: [{ name: 'a', reason: /kept/ }] },
    ]);
    expect(Object.keys(rig.world.snapshot())).toEqual(['a']);
  });

  test('keeps the problem that began the undo when another runner ends it', async () => {
    const rig = new SagaRig(async ({ call }) => {
      await call('box.ensure', 'a');
      throw new Error('boom');
    });
    await rig.crashAt('undo begins a');
    rig.cancel.abort();
    expect(await rig.run()).toMatchObject({
      state: 'failed',
      problem: { code: 'E_SCRIPT', detail: 'boom' },
    });
    expect(rig.guests.length).toBe(1);
    expect(rig.world.snapshot()).toEqual({});
  });

  test('ends also when the engine itself is at fault', async () => {
    const rig = new SagaRig(async ({ call }) => {
      await call('box.ensure', 'a');
      return 'x';
    });
    rig.tamper = (turn) => {
      if (turn.end !== null) Object.defineProperty(turn, 'logs', { value: null });
    };
    expect(await rig.run()).toMatchObject({ state: 'failed', problem: { code: 'E_INTERNAL' } });
    expect(rig.world.snapshot()).toEqual({});
    expect(rig.faults).toMatchObject([{ phase: 'engine', error: expect.any(TypeError) }]);
  });

  test('does not take what is not JSON from a guest that was broken', async () => {
    const rig = new SagaRig(async () => 'x');
    rig.tamper = (turn) => {
      if (turn.end?.ok === true) Object.assign(turn.end, { output: '"\ud800"' });
    };
    expect(await rig.run()).toMatchObject({ state: 'failed', problem: { code: 'E_SANDBOX' } });
  });

  test('fails a script that waits for what never comes', async () => {
    const rig = new SagaRig(async () => await new Promise(() => undefined));
    expect(await rig.run()).toMatchObject({ state: 'failed', problem: { code: 'E_SCRIPT' } });
  });

  test('finishes a run refused before its start as rejected', async () => {
    const [node = ''] = new SagaRig(async () => null).payload.aud.nodes;
    const rig = new SagaRig(async () => null, { mode: 'task', expect: { [node]: '0'.repeat(64) } });
    expect(await rig.run()).toMatchObject({ state: 'rejected', problem: { code: 'E_ARGUMENT' } });
    expect(rig.journal.bodies().map((body) => body.type)).toEqual(['finished']);
  });
});
