import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { isHyphaError, type Json } from '@hypha/protocol';
import { contractContext, contractRid, getVerb } from '@hypha/sal/contract';
import { expect, test, vi } from 'vitest';
import { execFiles } from './container-exec.ts';
import { cgroupPath, runtimeRoot } from './container-host.ts';
import { CONTAINER_LIMITS } from './container-limits.ts';
import { failureOf } from './testing/failure.ts';
import { nodeOfEachTest } from './testing/node-of-each-test.ts';
import { type ScratchNode, signal } from './testing/scratch-node.ts';

let node: ScratchNode;
nodeOfEachTest(async (made) => {
  node = made;
  await node.ensure('web', { env: { A: 'set' }, pids: 20 });
});

/** Commands of the processes in the container. */
async function listProcesses(): Promise<readonly string[]> {
  const host = await node.host();
  const { store } = await node.containers();
  const [instance] = await store.list();
  if (instance === undefined) return [];
  const pids = await readdir('/proc');
  const commands = await Promise.all(
    pids.map(async (pid) => {
      const cgroups = await readFile(`/proc/${pid}/cgroup`, 'utf8').catch(() => '');
      if (!cgroups.includes(cgroupPath(host, instance))) return '';
      return readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
    }),
  );
  return commands
    .filter((command) => command !== '')
    .map((text) => text.replaceAll('\0', ' ').trim());
}

async function runExec(options: {
  command: readonly string[];
  timeout?: string;
  signal?: AbortSignal;
}): Promise<Json> {
  const { command, timeout } = options;
  const container = { $rid: contractRid('container', 'web'), kind: 'container', name: 'web' };
  const args = { container, command, ...(timeout === undefined ? {} : { timeout }) };
  const call = { verb: 'container.exec', name: 'web', args };
  const verb = getVerb(await node.sal(), call.verb);
  const context = contractContext(verb, call, options.signal ? { signal: options.signal } : {});
  return verb.apply(context, verb.parse(call.args), null);
}

test('answers with the exit code and both outputs', async () => {
  const command = ['/bin/sh', '-c', 'echo out $A; echo err >&2; exit 7'];
  expect(await runExec({ command })).toEqual({
    exitCode: 7,
    stdout: 'out set\n',
    stderr: 'err\n',
    simulated: false,
  });
});

test('takes every argument as it is', async () => {
  const command = ['/bin/echo', '-n', '$A; exit 1', "it's", '--', '"quoted"', '', 'ünï'];
  expect(await runExec({ command })).toMatchObject({ stdout: '$A; exit 1 it\'s -- "quoted"  ünï' });
});

test('keeps the end of a long output, and does not stand in its way', async () => {
  const outcome = (await runExec({ command: ['/bin/seq', '1', '400000'] })) as { stdout: string };
  expect(outcome.stdout).toHaveLength(CONTAINER_LIMITS.execOutputBytesMax);
  expect(outcome.stdout.endsWith('\n399999\n400000\n')).toBe(true);
});

test('a command that is not there is the mistake of the script', async () => {
  const error = await failureOf(runExec({ command: ['/bin/nothing-like-it'] }));
  expect(error).toMatchObject({ code: 'E_ARGUMENT', where: { path: 'command' } });
});

test('ends what does not end in time', async () => {
  const error = await failureOf(runExec({ command: ['/bin/sleep', '4711'], timeout: '300ms' }));
  expect(error).toMatchObject({ code: 'E_TIMEOUT' });
  expect(isHyphaError(error) && error.message).toContain('300 ms');
  await vi.waitFor(async () => expect(await listProcesses()).not.toContain('/bin/sleep 4711'));
});

test('ends with its signal', async () => {
  const stop = new AbortController();
  const running = runExec({ command: ['/bin/sleep', '4712'], signal: stop.signal });
  const rejected = expect(running).rejects.toThrow('cancelled');
  await vi.waitFor(async () => expect(await listProcesses()).toContain('/bin/sleep 4712'));
  stop.abort(new Error('cancelled'));
  await rejected;
  await vi.waitFor(async () => expect(await listProcesses()).not.toContain('/bin/sleep 4712'));
});

test('leaves no process behind, whenever its signal comes', async () => {
  // From before the runtime has started anything until the command runs.
  for (let afterMs = 0; afterMs <= 120; afterMs += 8) {
    const stop = new AbortController();
    const running = runExec({ command: ['/bin/sleep', '4714'], signal: stop.signal });
    const rejected = expect(running).rejects.toThrow('cancelled');
    setTimeout(() => stop.abort(new Error('cancelled')), afterMs);
    await rejected;
  }
  await vi.waitFor(async () => expect(await listProcesses()).not.toContain('/bin/sleep 4714'));
});

test('a repeated call ends what the first left running', async () => {
  const host = await node.host();
  const [instance] = await (await node.containers()).store.list();
  if (instance === undefined) throw new Error('no container');
  // As the runtime of a runner that was killed leaves it.
  const { pid } = execFiles(host, instance, `run_${'b'.repeat(26)}/1`);
  await host.effects.run({
    tool: host.tools.runtime,
    argv: [
      ...['--root', runtimeRoot(host, instance), 'exec', '--detach', '--pid-file', pid],
      ...[instance.id, '/bin/sleep', '4713'],
    ],
    purpose: 'run a command',
    output: 'discard',
    signal: signal(),
  });
  await vi.waitFor(async () => expect(await listProcesses()).toContain('/bin/sleep 4713'));
  expect(await runExec({ command: ['/bin/echo', 'again'] })).toMatchObject({ stdout: 'again\n' });
  await vi.waitFor(async () => expect(await listProcesses()).not.toContain('/bin/sleep 4713'));
});

test('is held to the limits of the container', async () => {
  const command = [
    '/bin/sh',
    '-c',
    'i=0; while [ $i -lt 40 ]; do sleep 30 & i=$((i+1)); done; wait',
  ];
  await failureOf(runExec({ command, timeout: '500ms' }));
  expect((await listProcesses()).length).toBeLessThanOrEqual(20);
});

test('leaves no file behind, and shows no variable on its command line', async () => {
  await runExec({ command: ['/bin/true'] });
  const { store } = await node.containers();
  const [instance] = await store.list();
  const names = await readdir(join(node.runFolder, instance?.id ?? ''));
  expect(names.filter((name) => name.startsWith('exec-'))).toEqual([]);
});

test('needs a container that runs', async () => {
  const sal = await node.sal();
  const record = await node.record('web', { env: { A: 'set' }, pids: 20 });
  await sal.resource.halt?.(record, signal());
  expect(await failureOf(runExec({ command: ['/bin/true'] }))).toMatchObject({ code: 'E_SAL' });
  await sal.resource.remove(record, { deleteData: false, signal: signal() });
  expect(await failureOf(runExec({ command: ['/bin/true'] }))).toMatchObject({
    code: 'E_REFERENCE',
  });
});
