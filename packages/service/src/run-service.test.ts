import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { expect, onTestFinished, test } from 'vitest';

const SERVICE = fileURLToPath(new URL('./testing/small-service.ts', import.meta.url));

function start(deed: string): {
  child: ChildProcess;
  exit: Promise<unknown[]>;
  log: Promise<string>;
} {
  const child = fork(SERVICE, [deed], { stdio: ['ignore', 'ignore', 'pipe', 'ipc'] });
  const exit = once(child, 'exit');
  onTestFinished(() => {
    child.kill('SIGKILL');
  });
  return { child, exit, log: child.stderr === null ? Promise.resolve('') : text(child.stderr) };
}

test.for(['SIGTERM', 'SIGINT'] as const)('stops with 0 on %s, once it is ready', async (signal) => {
  const { child, exit, log } = start('serve');
  expect(await once(child, 'message')).toEqual([
    { ready: { url: 'http://127.0.0.1:1' } },
    undefined,
  ]);
  child.kill(signal);
  expect(await exit).toEqual([0, null]);
  expect(await log).toBe('');
});

test('stops with 0 when its parent lets go of it', async () => {
  const { child, exit } = start('serve');
  await once(child, 'message');
  child.disconnect();
  expect(await exit).toEqual([0, null]);
});

test('ends at once on a second SIGINT, and only on that', async () => {
  const { child, exit } = start('hang');
  await once(child, 'message');
  child.kill('SIGINT');
  expect(await once(child, 'message')).toEqual(['stopping', undefined]);
  child.kill('SIGTERM');
  expect(await once(child, 'message')).toEqual(['still stopping', undefined]);
  child.kill('SIGINT');
  expect(await exit).toEqual([1, null]);
});

test.for(['fail', 'throw-later', 'reject-later'])('logs and ends with 1 on %s', async (deed) => {
  const { exit, log } = start(deed);
  expect(await exit).toEqual([1, null]);
  const line = JSON.parse(await log);
  expect(line).toMatchObject({ level: 'fatal', name: 'small-service', msg: 'service failed' });
  expect(line.err.stack).toContain('small-service.ts');
});

test('prints what is wrong with its configuration and ends with 78', async () => {
  const { exit, log } = start('bad-config');
  expect(await exit).toEqual([78, null]);
  expect(await log).toBe('--port: x: not a number\n--state: : empty\n');
});

test('prints how to close a key file that others may read and ends with 78', async () => {
  const { exit, log } = start('open-key');
  expect(await exit).toEqual([78, null]);
  expect(await log).toContain('/state/key.pem: its mode 0644');
  expect(await log).toContain('chmod 600 /state/key.pem');
});
