import type { Json } from '@hypha/protocol';
import { describe, expect, test } from 'vitest';
import { withSecrets } from './secret-handles.ts';
import { SagaRig } from './testing/saga-rig.ts';

const VERSION = '0123456789abcdef0123456789abcdef';

function rigWith(args: Json): SagaRig {
  const rig = new SagaRig(async ({ call }) => {
    try {
      return await call('box.ensure', 'a', args);
    } catch (error) {
      const { code, message } = error as { code: string; message: string };
      return { code, message };
    }
  });
  rig.secrets = { token: VERSION };
  return rig;
}

describe('a secret in the arguments of a call', () => {
  test('is recorded as the script gave it, and handed on as its name and the version of the run', async () => {
    const rig = rigWith({ inside: [{ at: { $secret: 'token' } }] });
    expect(await rig.run()).toMatchObject({ state: 'committed' });
    const [intent] = rig.bodiesOf('step-intent');
    expect(intent?.args).toEqual({ inside: [{ at: { $secret: 'token' } }] });
    const grant = { payload: rig.payload, secrets: rig.secrets };
    expect(withSecrets(grant, intent?.args ?? null)).toEqual({
      inside: [{ at: { secret: 'token', version: VERSION } }],
    });
  });

  test.each<[string, Json, RegExp]>([
    ['E_SECRET', { $secret: 'other' }, /was given no secret other/],
    ['E_SECRET', { $secret: 'constructor' }, /was given no secret constructor/],
    ['E_REFERENCE', { $secret: 7 }, /looks like a secret/],
    ['E_REFERENCE', { $secret: 'token', version: VERSION }, /looks like a secret/],
    ['E_REFERENCE', { secret: 'token', version: VERSION }, /looks like a secret/],
  ])('is refused with %s when it is %j', async (code, inside, message) => {
    const rig = rigWith({ inside });
    const outcome = await rig.run();
    if (outcome.state !== 'committed') throw new Error(JSON.stringify(outcome));
    const refused = JSON.parse(outcome.output);
    expect(refused.code).toBe(code);
    expect(refused.message).toMatch(message);
    expect(rig.world.effects).toEqual([]);
  });

  test('is replaced when its step is undone, too', async () => {
    const rig = new SagaRig(async ({ call }) => {
      await call('box.ensure', 'a', { inside: { $secret: 'token' } });
      throw new Error('no further');
    });
    rig.secrets = { token: VERSION };
    expect(await rig.run()).toMatchObject({ state: 'failed' });
    expect(rig.bodiesOf('undo-result')).toMatchObject([{ step: 1, leftover: null }]);
  });

  test('leaves what is no handle as it was', () => {
    const args = { text: '$secret', secret: 'a word', version: 'none', list: [null, 1, true] };
    const rig = rigWith({});
    expect(withSecrets({ payload: rig.payload, secrets: {} }, args)).toEqual(args);
  });
});
