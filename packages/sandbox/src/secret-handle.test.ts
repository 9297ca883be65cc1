import { afterAll, expect, test } from 'vitest';
import { SandboxPool } from './sandbox-pool.ts';
import { endOf, programOf, script, turnsOf } from './testing/guest-driver.ts';

const pool = new SandboxPool();
afterAll(() => pool.close());

const withSecret = (body: string) => script(body, 'container, log, secret');

test('a secret leaves the guest as a name and nothing else', async () => {
  const source = withSecret(`
    const token = secret('token');
    log('uses', { token });
    await container('web', { files: { '/run/secrets/token': token }, env: { TOKEN: token } });`);
  const [turn] = await turnsOf(pool, programOf(source));
  const handle = { $secret: 'token' };
  expect(turn?.calls[0]?.args).toEqual({
    files: { '/run/secrets/token': handle },
    env: { TOKEN: handle },
  });
  expect(turn?.logs).toEqual([{ message: 'uses', fields: { token: handle } }]);
});

test('a secret cannot be changed or given another name', async () => {
  const source = withSecret(`
    const token = secret('token');
    let refused = '';
    try { token.name = 'other'; } catch (error) { refused = error.name; }
    return [refused, token.name, token.kind, Object.isFrozen(token)];`);
  expect(await endOf(pool, programOf(source))).toEqual(['TypeError', 'token', 'secret', true]);
});

test.for([
  ['in a template', "`Bearer ${secret('token')}`"],
  ['added to a text', "'Bearer ' + secret('token')"],
] as const)('a secret %s says how to pass it', async ([, expression]) => {
  expect(await endOf(pool, programOf(withSecret(`return ${expression};`)))).toMatchObject({
    message: expect.stringMatching(/secret token has no text in a script: pass it alone/),
  });
});

test('a secret needs a name', async () => {
  expect(await endOf(pool, programOf(withSecret('return secret(7);')))).toMatchObject({
    message: 'secret: the name is a string',
  });
});
