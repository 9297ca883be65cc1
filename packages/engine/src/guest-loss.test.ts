import { GuestDisplaced, HyphaError } from '@hypha/protocol';
import { describe, expect, test } from 'vitest';
import { SagaRig } from './testing/saga-rig.ts';
import { ScriptedGuest } from './testing/scripted-guest.ts';

const twoSteps = () =>
  new SagaRig(async ({ call, log }) => {
    await call('box.ensure', 'a');
    log('half way');
    await call('box.ensure', 'b');
    return 'both';
  });

describe('a guest that is lost', () => {
  test('is replaced by one that is led through the record, in a host that nobody shares', async () => {
    const rig = twoSteps();
    rig.guestDeaths = [3];
    expect(await rig.run()).toEqual({ state: 'committed', output: '"both"' });
    expect(rig.guestRequests).toEqual([
      { run: rig.journal.run, realm: 'default', alone: false },
      { run: rig.journal.run, realm: 'default', alone: true },
    ]);
    expect(rig.guests.every((guest) => guest.closed)).toBe(true);
    expect(rig.world.effects).toEqual(['create a', 'size a 1', 'create b', 'size b 1']);
    expect(rig.bodiesOf('log').length).toBe(1);
  });

  test('twice in its own turn fails the run', async () => {
    const rig = twoSteps();
    rig.guestDeaths = [2, 3];
    expect(await rig.run()).toMatchObject({ state: 'failed', problem: { code: 'E_SANDBOX' } });
    expect(rig.world.snapshot()).toEqual({});
  });

  test('to another script costs nothing, as often as it happens', async () => {
    const rig = twoSteps();
    rig.guestDeaths = Array.from({ length: 50 }, () => ({ turn: 2, isDisplaced: true }) as const);
    expect(await rig.run()).toEqual({ state: 'committed', output: '"both"' });
    expect(rig.guestRequests.every(({ alone }) => !alone)).toBe(true);
    expect(rig.guests.length).toBe(51);
  });

  test('to other scripts without end fails the run', async () => {
    const rig = twoSteps();
    rig.guestDeaths = Array.from({ length: 100 }, () => ({ turn: 1, isDisplaced: true }) as const);
    expect(await rig.run()).toMatchObject({ state: 'failed', problem: { code: 'E_SANDBOX' } });
    expect(rig.guests.length).toBe(51);
  });

  test('alone stays alone when it is lost to nobody any more', async () => {
    const rig = twoSteps();
    rig.guestDeaths = [2, { turn: 2, isDisplaced: true }];
    expect((await rig.run()).state).toBe('committed');
    expect(rig.guestRequests.map(({ alone }) => alone)).toEqual([false, true, true]);
  });

  test('with calls under way leaves them to end, and the next guest hears of them', async () => {
    const rig = new SagaRig(async ({ call }) => {
      const slow = call('box.ensure', 'slow');
      await call('box.ensure', 'fast');
      await slow;
      return await call('box.ensure', 'last');
    });
    rig.world.onApply = async ({ name, signal }) => {
      if (name === 'slow') await rig.clock.sleep(5_000, signal);
    };
    rig.guestDeaths = [2];
    expect((await rig.run()).state).toBe('committed');
    expect(rig.world.count('create slow')).toBe(1);
    expect(rig.world.violations).toEqual([]);
    // The lost one heard of nothing, the next of both in the order they ended.
    expect(rig.guests.map(({ turns }) => turns)).toEqual([[2], [2, 1, 3]]);
  });

  test.each([2, { turn: 2, isDisplaced: true } as const])(
    'still hears of a cancel in what is under way: %o',
    async (death) => {
      const rig = new SagaRig(async ({ call }) => {
        const slow = call('box.ensure', 'slow');
        await call('box.ensure', 'fast');
        await slow;
      });
      let isAborted = false;
      rig.world.onApply = async ({ name, signal }) => {
        if (name !== 'slow') return;
        // By now the guest is lost: it dies when it hears of the other.
        await rig.clock.sleep(1_000, signal);
        rig.cancel.abort();
        isAborted = signal.aborted;
      };
      rig.guestDeaths = [death];
      expect((await rig.run()).state).toBe('cancelled');
      expect(isAborted).toBe(true);
      expect(rig.world.snapshot()).toEqual({});
    },
  );

  test('for want of a host of its own tries again for as long as that may come', async () => {
    const rig = twoSteps();
    const begunMs = rig.clock.monotonicMs();
    rig.openGuest = async () => {
      const guest = new ScriptedGuest(rig.script);
      const start = guest.start.bind(guest);
      guest.start = async (...args) => {
        if (rig.clock.monotonicMs() - begunMs > 5_000) return await start(...args);
        throw new GuestDisplaced(new HyphaError('E_UNAVAILABLE', 'no host can be started'));
      };
      return guest;
    };
    expect((await rig.run()).state).toBe('committed');
  });

  test('while the run sleeps loses nothing of the sleep', async () => {
    const rig = new SagaRig(async ({ call, now }) => {
      const begunMs = now();
      const sleep = call('sleep', null, { duration: 1_000 });
      await call('box.ensure', 'a');
      await sleep;
      return now() - begunMs;
    });
    rig.guestDeaths = [2];
    expect(await rig.run()).toEqual({ state: 'committed', output: '1000' });
    expect(rig.bodiesOf('step-intent').map(({ verb }) => verb)).toEqual(['sleep', 'box.ensure']);
  });
});
