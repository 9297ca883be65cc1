import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { HyphaError } from '@hypha/protocol';
import { expect, onTestFinished, test } from 'vitest';
import { COMMAND_ENV, commandFailure, findTool, runCommand } from './command.ts';

const signal = AbortSignal.timeout(60_000);
const sh = '/bin/sh';

async function failureOf(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => expect.fail('did not throw'),
    (error: unknown) => error,
  );
}

test('finds an installed tool by its absolute path and nothing for one that is not', async () => {
  expect(await findTool('sh')).toMatch(/^\/(usr\/)?bin\/sh$/);
  expect(await findTool('no-such-tool-anywhere')).toBeUndefined();
});

test('gives the command its arguments as they are and only the fixed environment', async () => {
  const result = await runCommand({
    tool: sh,
    argv: ['-c', 'printf %s "$1"; env', 'sh', '$(id); "quoted" *'],
    purpose: 'print',
    signal,
  });
  expect(result.stdout.startsWith('$(id); "quoted" *')).toBe(true);
  const names = result.stdout.matchAll(/([A-Z_]+)=/g).map((match) => match[1]);
  const set = new Set(names);
  set.delete('PWD');
  set.delete('_');
  expect([...set].sort()).toEqual(Object.keys(COMMAND_ENV).sort());
});

test('a tool makes files for everybody, and this process goes on making them for itself', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'hypha-command-'));
  onTestFinished(() => rm(folder, { recursive: true }));
  const own = process.umask(0o077);
  onTestFinished(() => void process.umask(own));
  const argv = ['-c', ': > "$0"', join(folder, 'tool')];
  await runCommand({ tool: sh, argv, purpose: 'make a file', signal });
  await writeFile(join(folder, 'own'), '');
  const modeOf = async (name: string) => (await stat(join(folder, name))).mode & 0o777;
  expect(await modeOf('tool')).toBe(0o644);
  expect(await modeOf('own')).toBe(0o600);
});

test('hands stdin over', async () => {
  const result = await runCommand({
    tool: '/bin/cat',
    argv: [],
    input: 'hello',
    purpose: 'copy',
    signal,
  });
  expect(result.stdout).toBe('hello');
});

test('a failing command is E_SAL with exit code and the end of stderr', async () => {
  const error = await failureOf(
    runCommand({ tool: sh, argv: ['-c', 'echo why >&2; exit 7'], purpose: 'try', signal }),
  );
  expect(error).toBeInstanceOf(HyphaError);
  expect(commandFailure(error)).toMatchObject({ exitCode: 7, stderr: 'why\n', timedOut: false });
  expect((error as HyphaError).message).not.toContain('why');
});

test('an exit code the caller expects is an answer', async () => {
  const command = { tool: sh, argv: ['-c', 'exit 3'], purpose: 'ask', signal };
  expect((await runCommand({ ...command, exitCodes: [0, 3] })).exitCode).toBe(3);
  expect((await runCommand({ ...command, exitCodes: 'any' })).exitCode).toBe(3);
});

test('a tool that is not there is E_SAL without an exit code', async () => {
  const error = await failureOf(
    runCommand({ tool: '/no/such/tool', argv: [], purpose: 'start', signal }),
  );
  expect(commandFailure(error)).toMatchObject({ exitCode: null, signal: null });
});

test('ends a command at its deadline', async () => {
  const error = await failureOf(
    runCommand({ tool: '/bin/sleep', argv: ['60'], purpose: 'wait', signal, timeoutMs: 50 }),
  );
  expect(commandFailure(error)).toMatchObject({ timedOut: true });
});

test('does not wait for a grandchild that keeps the pipes open', async () => {
  const started = performance.now();
  const result = await runCommand({
    tool: sh,
    argv: ['-c', 'sleep 20 & echo $!'],
    purpose: 'leave a child',
    signal,
    exitCodes: [0],
  });
  process.kill(Number(result.stdout), 'SIGKILL');
  expect(performance.now() - started).toBeLessThan(10_000);
});

test('an aborted signal ends the command and is thrown as it is', async () => {
  const controller = new AbortController();
  const reason = new Error('cancelled by the test');
  const running = runCommand({
    tool: '/bin/sleep',
    argv: ['60'],
    purpose: 'wait',
    signal: controller.signal,
  });
  controller.abort(reason);
  expect(await failureOf(running)).toBe(reason);
});

test('refuses output beyond the bound', async () => {
  const error = await failureOf(
    runCommand({
      tool: sh,
      argv: ['-c', 'while :; do echo aaaaaaaaaaaaaaaaaaaaaaaa; done'],
      purpose: 'print for ever',
      signal,
      outputBytesMax: 1000,
    }),
  );
  expect((error as HyphaError).message).toContain('printed more than its bound');
});

test('an argument that no command can have is a command that did not start', async () => {
  const error = await failureOf(runCommand({ tool: sh, argv: ['a\0b'], purpose: 'try', signal }));
  expect(error).toMatchObject({ code: 'E_SAL', message: 'cannot try: /bin/sh did not start' });
});

test('a tool that reads no input is not waited for to read it', async () => {
  const input = 'x'.repeat(1024 * 1024);
  const result = await runCommand({ tool: '/bin/true', argv: [], purpose: 'try', input, signal });
  expect(result.exitCode).toBe(0);
});
