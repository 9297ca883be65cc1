import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Protection } from '@hypha/protocol';
import { openTempDir, type TempDir, waitFor } from '@hypha/testkit';
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest';
import { SupervisorConfig } from './config.ts';
import { readProtection } from './node-protection.ts';
import { openStateFolder, type StateFolder } from './state-folder.ts';

let dir: TempDir;
let folder: StateFolder;
beforeAll(async () => {
  dir = await openTempDir();
  folder = await openStateFolder(join(dir.path, 'node'));
  await mkdir(folder.identity, { mode: 0o700 });
  await writeFile(join(folder.identity, 'identity.pem'), '', { mode: 0o600 });
});
afterAll(async () => dir[Symbol.asyncDispose]());

interface Options {
  readonly config?: object;
  readonly hasRealSals?: boolean;
  readonly runners?: readonly number[];
}

async function read(what: string, options: Options = {}): Promise<Protection | undefined> {
  const { config = {}, hasRealSals = false, runners = [] } = options;
  const all = await readProtection({
    config: SupervisorConfig.parse({ state: folder.root, redis: '/run/redis.sock', ...config }),
    ...{ folder, hasRealSals, runners },
  });
  return all.find((protection) => protection.what === what);
}

test.for([
  ['redis users', {}, false],
  ['redis users', { redisUsers: '/state/redis-users.json' }, true],
  ['redis users', { redis: 'redis://127.0.0.1:6379' }, false],
  ['redis users', { redis: 'redis://one:secret@127.0.0.1:6379' }, true],
  ['redis connection', {}, true],
  ['redis connection', { redis: 'redis://127.0.0.1:6379' }, true],
  ['redis connection', { redis: 'redis://[::1]:6379' }, true],
  ['redis connection', { redis: 'rediss://queue.example' }, true],
  ['redis connection', { redis: 'redis://queue.example:6379' }, false],
  ['tls', {}, true],
  ['tls', { host: '::1' }, true],
  ['tls', { host: '0.0.0.0' }, false],
  ['tls', { host: '0.0.0.0', tlsCert: 'a', tlsKey: 'b' }, true],
] as const)('%s with %j: %s', async ([what, config, ok]) => {
  const protection = await read(what, { config });
  expect(protection).toMatchObject({ ok });
  expect(protection?.hint === undefined).toBe(ok);
});

test('a key that others may read is named', async () => {
  expect(await read('state folder')).toMatchObject({ ok: true });
  const key = join(folder.identity, 'identity.pem');
  await chmod(key, 0o640);
  onTestFinished(() => chmod(key, 0o600));
  expect(await read('state folder')).toMatchObject({
    ok: false,
    detail: `others may use ${key}: mode 640`,
    hint: `chmod go= ${key}`,
  });
});

test('root is right for runners of real SALs only', async ({ skip }) => {
  if (process.geteuid?.() !== 0) skip('needs root');
  expect(await read('runner user', { hasRealSals: true })).toMatchObject({ ok: true });
  expect(await read('runner user')).toMatchObject({ ok: false });
});

test('a host that was left something is found out', async () => {
  // As open as a process of ours can be, under the name of a host.
  const program = `process.title = 'hypha-sandbox'; setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ['-e', program], { stdio: 'ignore' });
  const ended = once(child, 'exit');
  onTestFinished(async () => {
    child.kill('SIGKILL');
    await ended;
  });
  const runners = [process.pid];
  await waitFor(async () => (await read('sandbox', { runners })) !== undefined);
  const protection = await read('sandbox', { runners });
  expect(protection).toMatchObject({ ok: false });
  expect(protection?.detail).toContain('the user of its runner, the network of its runner');
});
