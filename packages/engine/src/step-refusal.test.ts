import type { Json } from '@hypha/protocol';
import { describe, expect, test } from 'vitest';
import { SagaRig } from './testing/saga-rig.ts';
import type { Script } from './testing/scripted-guest.ts';

type Refused = { code: string; message: string };

/** A script that makes one call and returns the code and message it was refused with. */
function refusalOf(verb: string, name: string | null, args: Json = {}): Script {
  return async ({ call }) => {
    try {
      await call(verb, name, args);
    } catch (error) {
      const { code, message } = error as Refused;
      return { code, message };
    }
    return null;
  };
}

async function outputOf(rig: SagaRig): Promise<Refused> {
  const outcome = await rig.run();
  if (outcome.state !== 'committed') throw new Error(JSON.stringify(outcome));
  return JSON.parse(outcome.output);
}

const otherDeployment = { $rid: 'a'.repeat(26), kind: 'box', name: 'a' };
const deep = Array.from({ length: 80 }).reduce<Json>((inner) => [inner], null);

describe('a call is refused', () => {
  test.each<[string, string, string | null, Json, RegExp]>([
    ['E_NAME', 'box.ensure', '../etc', {}, /"\.\.\/etc" is not a valid name/],
    ['E_NAME', 'box.ensure', '-a', {}, /not a valid name/],
    ['E_NAME', 'box.ensure', null, {}, /needs the name of a box/],
    ['E_ARGUMENT', 'box.explode', 'a', {}, /knows no call "box.explode"/],
    ['E_SAL_UNAVAILABLE', 'crate.ensure', 'a', {}, /no hoist here/],
    ['E_ARGUMENT', 'box.ensure', 'a', { size: 'big' }, /at size/],
    ['E_ARGUMENT', 'box.ensure', 'a', { inside: deep }, /nest too deep/],
    ['E_ARGUMENT', 'box.ensure', 'a', { inside: '\ud800' }, /not Unicode/],
    ['E_ARGUMENT', 'box.ensure', 'a', { inside: 'x'.repeat(200_000) }, /bytes, at most/],
    ['E_REFERENCE', 'box.ensure', 'a', { inside: otherDeployment }, /another deployment/],
    ['E_REFERENCE', 'box.ensure', 'a', { inside: { $rid: 7 } }, /looks like a handle/],
    ['E_REFERENCE', 'box.ensure', 'a', { inside: [{ $rid: 'x', extra: 1 }] }, /looks like/],
  ])('with %s: %s %s', async (code, verb, name, args, message) => {
    const rig = new SagaRig(refusalOf(verb, name, args));
    const refused = await outputOf(rig);
    expect(refused.code).toBe(code);
    expect(refused.message).toMatch(message);
    expect(rig.world.effects).toEqual([]);
    expect(rig.bodiesOf('step-intent')).toMatchObject([{ step: 1, action: 'refuse', rid: null }]);
    expect(rig.bodiesOf('step-error')).toMatchObject([{ step: 1, error: { code } }]);
  });

  test('without the capability in the envelope', async () => {
    const rig = new SagaRig(refusalOf('box.ensure', 'a'), { caps: [] });
    expect((await outputOf(rig)).code).toBe('E_CAPABILITY');
    expect(rig.world.effects).toEqual([]);
  });

  test('when its handle is of a resource nobody declared', async () => {
    const rig = new SagaRig(async () => null);
    rig.script = refusalOf('box.ensure', 'b', { inside: rig.handle('a') });
    expect(await outputOf(rig)).toMatchObject({
      code: 'E_REFERENCE',
      message: 'box a is not declared in this deployment',
    });
  });

  test('when its handle has a changed name', async () => {
    const rig = new SagaRig(async ({ call }) => {
      await call('box.ensure', 'a');
      await call('box.ensure', 'b', { inside: rig.handle('a', { name: 'c' }) });
    });
    expect(await rig.run()).toMatchObject({ state: 'failed', problem: { code: 'E_REFERENCE' } });
  });

  test('but not when its handle is of the committed record', async () => {
    const rig = new SagaRig(async ({ call }) => {
      await call('box.ensure', 'b', { inside: { deep: [rig.handle('a')] } });
    });
    const { $rid: rid, kind, name } = rig.handle('a');
    rig.committed = [{ rid, kind, name, spec: {}, specHash: '0'.repeat(64) }];
    expect((await rig.run()).state).toBe('committed');
  });

  test('when it declares more than the signed ceiling, saying what and by how much', async () => {
    const rig = new SagaRig(
      async ({ call }) => {
        await call('box.ensure', 'a', { size: 60 });
        await call('box.ensure', 'a', { size: 70 });
        await call('box.ensure', 'b', { size: 50 });
      },
      { limits: { resources: { storageBytes: 100 } } },
    );
    expect(await rig.run()).toMatchObject({
      state: 'failed',
      problem: {
        code: 'E_RESOURCES',
        detail:
          'with box b the deployment takes 120 storageBytes, 20 more than limits.resources.storageBytes of 100',
        where: { step: 3, line: 3 },
      },
    });
    expect(rig.world.snapshot()).toEqual({});
  });

  test('for the ceiling also when what came before was replayed', async () => {
    const script: Script = async ({ call }) => {
      await call('box.ensure', 'a', { size: 60 });
      await call('box.ensure', 'c', { size: 1 });
      await call('box.ensure', 'b', { size: 50 });
    };
    const limits = { limits: { resources: { storageBytes: 100 } } };
    const rig = new SagaRig(script, limits);
    await rig.crashAt('apply begins c');
    expect(await rig.run()).toMatchObject({ state: 'failed', problem: { code: 'E_RESOURCES' } });
  });

  test('when there are too many calls, once for the script and then for good', async () => {
    const rig = new SagaRig(
      async ({ call }) => {
        for (;;) {
          try {
            await call('box.peek', 'a');
          } catch {
            // Goes on regardless.
          }
        }
      },
      { limits: { hostCalls: 3 } },
    );
    expect(await rig.run()).toMatchObject({ state: 'failed', problem: { code: 'E_HOST_CALLS' } });
    expect(rig.bodiesOf('step-error')).toMatchObject([{ step: 4 }]);
  });
});

describe('output', () => {
  test('of log lines and the returned value is bounded together', async () => {
    const rig = new SagaRig(
      async ({ log }) => {
        log('x'.repeat(400));
        return 'y'.repeat(700);
      },
      { limits: { outputBytes: 1000 } },
    );
    expect(await rig.run()).toMatchObject({ state: 'failed', problem: { code: 'E_OUTPUT' } });
  });

  test('that is not Unicode is kept as far as it can be', async () => {
    const rig = new SagaRig(async ({ log }) => {
      log('half \ud800', { '\udc00': ['\ud800'] });
      return '\ud800';
    });
    expect((await rig.run()).state).toBe('committed');
    expect(rig.bodiesOf('log')).toMatchObject([{ message: 'half \ufffd' }]);
  });
});
