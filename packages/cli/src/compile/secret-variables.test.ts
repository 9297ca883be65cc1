import { expect, test } from 'vitest';
import { findSecretVariables } from './secret-variables.ts';

const script = (body: string) => `import { container, secret } from 'hypha';
export default async () => { ${body} };`;

test.for([
  ['directly', `await container('a', { env: { TOKEN: secret('token'), MODE: 'x' } });`, ['TOKEN']],
  [
    'by a constant',
    `const token = secret('token'); await container('a', { env: { 'API_KEY': token } });`,
    ['API_KEY'],
  ],
  ['in files only', `await container('a', { files: { '/run/t': secret('token') } });`, []],
  ['nowhere', `await container('a', { env: { TOKEN: 'no secret' } });`, []],
] as const)('a script that uses a secret %s', ([, body, variables]) => {
  expect(findSecretVariables(script(body))).toEqual(variables);
});
