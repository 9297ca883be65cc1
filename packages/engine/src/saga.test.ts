import { HyphaError } from '@hypha/protocol';
import { describe, expect, test } from 'vitest';
import { Fuse } from './testing/fuse.ts';
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

  test('executes calls made together one after another, in the order made', async () => {
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
    const probe = new SagaRig(rig.script);
    const { points } = await probe.runWithCrashes([]);
    const undo = points.indexOf('undo begins a') + 1;
    const fuse = new Fuse(undo);
    expect(await Promise.race([rig.run(fuse), fuse.blown])).toBe('blown');
    rig.cancel.abort();
    expect(await rig.run()).toMatchObject({
      state: 'failed',
      problem: { code: 'E_SCRIPT', detail: 'boom' },
    });
    expect(rig.guests.length).toBe(1);
    expect(rig.world.snapshot()).toEqual({});
  });

  test('fails a script that waits for what never comes', async () => {
    const rig = new SagaRig(async () => await new Promise(() => undefined));
    expect(await rig.run()).toMatchObject({ state: 'failed', problem: { code: 'E_SCRIPT' } });
  });

  test('finishes a run refused before its start as rejected', async () => {
    const rig = new SagaRig(async () => null, { mode: 'plan' });
    expect(await rig.run()).toMatchObject({
      state: 'rejected',
      problem: { code: 'E_UNSUPPORTED' },
    });
    expect(rig.journal.bodies().map((body) => body.type)).toEqual(['finished']);
  });
});

describe('replay', () => {
  test('shows both sides when the script takes another path', async () => {
    const rig = new SagaRig(async ({ call }) => {
      await call('box.ensure', 'a', { size: 1 });
      await call('box.ensure', 'b');
    });
    const fuse = new Fuse((await pointsOf(rig)).indexOf('apply begins b') + 1);
    expect(await Promise.race([rig.run(fuse), fuse.blown])).toBe('blown');
    rig.script = async ({ call }) => await call('box.ensure', 'a', { size: 2 });
    const outcome = await rig.run();
    expect(outcome).toMatchObject({
      state: 'failed',
      problem: {
        code: 'E_NONDETERMINISM',
        where: { step: 1 },
        details: { recorded: { args: { size: 1 } }, made: { args: { size: 2 } } },
      },
    });
    expect(rig.world.snapshot()).toEqual({});
  });

  test('notices a script that ends before a step on record', async () => {
    const rig = new SagaRig(async ({ call }) => {
      await call('box.ensure', 'a');
      await call('box.ensure', 'b');
    });
    const fuse = new Fuse((await pointsOf(rig)).indexOf('apply begins b') + 1);
    expect(await Promise.race([rig.run(fuse), fuse.blown])).toBe('blown');
    rig.script = async () => 'nothing to do';
    expect(await rig.run()).toMatchObject({
      state: 'failed',
      problem: { code: 'E_NONDETERMINISM', where: { step: 1 } },
    });
    expect(rig.world.snapshot()).toEqual({});
  });

  test('gives the script the clock of its first start', async () => {
    const rig = new SagaRig(async ({ call, program }) => {
      await call('box.ensure', 'a');
      return program.nowMs;
    });
    const startedAt = rig.clock.nowMs();
    const fuse = new Fuse((await pointsOf(rig)).indexOf('apply done a') + 1);
    expect(await Promise.race([rig.run(fuse), fuse.blown])).toBe('blown');
    rig.clock.advance(60_000);
    expect(await rig.run()).toEqual({ state: 'committed', output: String(startedAt) });
  });

  test('never repeats a call that cannot be probed', async () => {
    const rig = new SagaRig(async ({ call }) => {
      await call('box.ensure', 'a');
      await call('box.run', 'a');
    });
    const fuse = new Fuse((await pointsOf(rig)).indexOf('run done a') + 1);
    expect(await Promise.race([rig.run(fuse), fuse.blown])).toBe('blown');
    expect(await rig.run()).toMatchObject({
      state: 'failed',
      problem: { code: 'E_UNKNOWN_OUTCOME', where: { step: 2 } },
    });
    expect(rig.world.count('run a')).toBe(1);
  });

  test('repeats such a call when it was declared idempotent', async () => {
    const rig = new SagaRig(async ({ call }) => {
      await call('box.ensure', 'a');
      return await call('box.run', 'a', { idempotent: true });
    });
    const fuse = new Fuse((await pointsOf(rig)).indexOf('run done a') + 1);
    expect(await Promise.race([rig.run(fuse), fuse.blown])).toBe('blown');
    expect(await rig.run()).toEqual({ state: 'committed', output: '2' });
  });

  test('keeps what became of such a call before anything else happens', async () => {
    const rig = new SagaRig(async ({ call }) => {
      await call('box.ensure', 'a');
      await call('box.run', 'a');
      await call('box.ensure', 'b');
    });
    const fuse = new Fuse((await pointsOf(rig)).indexOf('plan b') + 1);
    expect(await Promise.race([rig.run(fuse), fuse.blown])).toBe('blown');
    expect((await rig.run()).state).toBe('committed');
    expect(rig.world.count('run a')).toBe(1);
  });

  test('leads a fresh guest through the record when the first one dies', async () => {
    const rig = new SagaRig(async ({ call, log }) => {
      await call('box.ensure', 'a');
      log('half way');
      await call('box.ensure', 'b');
      return 'both';
    });
    rig.guestDeaths = [3];
    expect(await rig.run()).toEqual({ state: 'committed', output: '"both"' });
    expect(rig.guests.length).toBe(2);
    expect(rig.guests.every((guest) => guest.closed)).toBe(true);
    expect(rig.world.effects).toEqual(['create a', 'size a 1', 'create b', 'size b 1']);
    expect(rig.bodiesOf('log').length).toBe(1);
  });

  test('fails the run when the second guest dies too', async () => {
    const rig = new SagaRig(async ({ call }) => {
      await call('box.ensure', 'a');
      await call('box.ensure', 'b');
    });
    rig.guestDeaths = [2, 3];
    expect(await rig.run()).toMatchObject({ state: 'failed', problem: { code: 'E_SANDBOX' } });
    expect(rig.world.snapshot()).toEqual({});
  });
});

/** The points a calm run of the same script passes. */
async function pointsOf(rig: SagaRig): Promise<string[]> {
  const calm = new SagaRig(rig.script);
  const { points } = await calm.runWithCrashes([]);
  return points;
}

describe('stopping', () => {
  test('starts no further step once cancelled, undoes, and is cancelled', async () => {
    const rig = new SagaRig(async ({ call }) => {
      await call('box.ensure', 'a');
      await call('box.ensure', 'b');
      await call('box.ensure', 'c');
    });
    rig.world.onApply = ({ step }) => {
      if (step === 2) rig.cancel.abort();
    };
    expect(await rig.run()).toMatchObject({
      state: 'cancelled',
      problem: { code: 'E_CANCELLED' },
    });
    expect(rig.bodiesOf('step-intent').map(({ step }) => step)).toEqual([1, 2]);
    expect(rig.world.snapshot()).toEqual({});
    expect(rig.world.count('create b')).toBe(0);
  });

  test('is cancelled without a guest when the cancel came first', async () => {
    const rig = new SagaRig(async () => null);
    rig.cancel.abort();
    expect(await rig.run()).toMatchObject({ state: 'cancelled' });
    expect(rig.guests.length).toBe(0);
    expect(rig.journal.bodies().map((body) => body.type)).toEqual(['finished']);
  });

  test('takes a refused commit of the journal as the cancel it is', async () => {
    const rig = new SagaRig(async ({ call }) => await call('box.ensure', 'a'));
    const error = new HyphaError('E_CANCELLED', 'the run was cancelled');
    rig.journal.refuseNext = { type: 'committed', error };
    expect(await rig.run()).toMatchObject({ state: 'cancelled' });
    expect(rig.bodiesOf('committed')).toEqual([]);
    expect(rig.world.snapshot()).toEqual({});
    expect(rig.bodiesOf('step-result').length).toBe(1);
  });

  test('ends at the deadline, counted from the first start', async () => {
    const rig = new SagaRig(
      async ({ call }) => {
        await call('box.ensure', 'a');
        await call('box.ensure', 'b');
      },
      { limits: { wallMs: 60_000 } },
    );
    const fuse = new Fuse((await pointsOf(rig)).indexOf('plan b') + 1);
    expect(await Promise.race([rig.run(fuse), fuse.blown])).toBe('blown');
    rig.clock.advance(50_000);
    rig.world.onApply = ({ step }) => {
      if (step === 2) rig.clock.advance(15_000);
    };
    expect(await rig.run()).toMatchObject({ state: 'failed', problem: { code: 'E_DEADLINE' } });
    expect(rig.world.snapshot()).toEqual({});
  });

  test('finishes the step in flight when drained, and the next runner goes on', async () => {
    const rig = new SagaRig(async ({ call }) => {
      await call('box.ensure', 'a');
      await call('box.ensure', 'b');
      return 'both';
    });
    const drained = new SagaRig(rig.script);
    drained.world.onApply = ({ step }) => {
      if (step === 1) drained.drain.abort();
    };
    expect(await drained.run()).toEqual({ state: 'released' });
    expect(drained.bodiesOf('step-result').map(({ step }) => step)).toEqual([1]);
    expect(drained.bodiesOf('step-intent').length).toBe(1);
    // The journal is what the next runner has.
    for (const event of drained.journal.events) rig.journal.events.push(event);
    rig.world.boxes.set('a', { size: 1, colour: 'plain', whole: true, lastOp: 'x' });
    expect(await rig.run()).toEqual({ state: 'committed', output: '"both"' });
    expect(rig.world.count('create a')).toBe(0);
  });

  test('touches nothing more once another runner owns the run', async () => {
    const rig = new SagaRig(async ({ call }) => {
      await call('box.ensure', 'a');
      await call('box.ensure', 'b');
    });
    rig.world.onApply = () => {
      rig.journal.epoch += 1;
    };
    await expect(rig.run()).rejects.toMatchObject({ code: 'E_STALE_EPOCH' });
    expect(rig.world.effects).toEqual(['create a', 'size a 1']);
    expect(rig.guests.every((guest) => guest.closed)).toBe(true);
  });

  test('halts when a call goes on after it was aborted', async () => {
    const rig = new SagaRig(async ({ call }) => await call('box.ensure', 'a'));
    rig.world.deaf = true;
    rig.world.onApply = () => {
      rig.cancel.abort();
      setImmediate(() => rig.clock.advance(30_000));
    };
    await expect(rig.run()).rejects.toMatchObject({ code: 'E_INTERNAL' });
    expect(rig.bodiesOf('undo-intent')).toEqual([]);
  });
});
