import { readFile, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Json } from '@hypha/protocol';
import { findTool, runCommand } from '@hypha/sal';
import { contractRef, contractRid } from '@hypha/sal/contract';
import { beforeEach, describe, expect, test, vi } from 'vitest';
import { CONTAINER_LIMITS } from './container-limits.ts';
import { findMonitor } from './monitor.ts';
import { failureOf } from './testing/failure.ts';
import { nodeOfEachTest } from './testing/node-of-each-test.ts';
import { PAGE, type ScratchNode, signal } from './testing/scratch-node.ts';
import { NO_TRACES } from './testing/traces.ts';

let node: ScratchNode;
nodeOfEachTest((made) => {
  node = made;
});

function addressOf(result: Json): string {
  return String((result as { address: string }).address);
}

describe('restarts', () => {
  test('after a crash when they are due, and counts them', async () => {
    await node.ensure('web', PAGE);
    process.kill(await node.pid('web'), 'SIGKILL');
    await vi.waitFor(async () => {
      expect(await node.observe('web', PAGE)).toMatchObject({
        state: 'backing-off',
        converged: true,
        info: { restarts: 1, exitCode: 137 },
      });
    });
    await node.converge('web', PAGE);
    expect((await node.observe('web', PAGE)).state).toBe('backing-off');
    node.laterMs = CONTAINER_LIMITS.restartMsMax;
    expect(await node.observe('web', PAGE)).toMatchObject({ state: 'stopped', converged: false });
    await node.converge('web', PAGE);
    expect(await node.observe('web', PAGE)).toMatchObject({
      state: 'running',
      converged: true,
      info: { restarts: 1 },
    });
    const [address] = (await node.observe('web', PAGE)).addresses;
    // Running, it may not yet listen.
    const answer = await vi.waitFor(() => fetch(`http://[${address}]/page`), { timeout: 10_000 });
    expect(await answer.text()).toBe('hello');
  });

  test('on failure, not after success', async () => {
    const failing = { command: ['/bin/sh', '-c', 'exit 3'], restart: 'on-failure' };
    await node.ensure('one', failing);
    await vi.waitFor(async () => {
      expect(await node.observe('one', failing)).toMatchObject({
        state: 'backing-off',
        info: { exitCode: 3 },
      });
    });
    const ending = { command: ['/bin/true'], restart: 'on-failure' };
    await node.ensure('two', ending);
    await vi.waitFor(async () => {
      expect(await node.observe('two', ending)).toMatchObject({
        state: 'stopped',
        converged: true,
        info: { exitCode: 0 },
      });
    });
  });

  test('never for a job, not even when it is declared again', async () => {
    const args = { command: ['/bin/sh', '-c', 'echo once >> /data/runs'], restart: 'never' };
    await node.ensure('job', args);
    await node.capture();
    await node.ensure('job', args, 'b');
    await node.converge('job', args);
    const { store } = await node.containers();
    const runs = join(store.folder(await node.current('job')), 'rootfs/data/runs');
    expect(await readFile(runs, 'utf8')).toBe('once\n');
  });
});

describe('repairs', () => {
  test('a container whose monitor was killed', async () => {
    await node.ensure('web', PAGE);
    const pid = await node.pid('web');
    const monitor = await findMonitor(await node.host(), await node.current('web'));
    process.kill(monitor ?? 0, 'SIGKILL');
    await vi.waitFor(async () => {
      expect(await node.observe('web', PAGE)).toMatchObject({ state: 'failed', converged: false });
    });
    await node.converge('web', PAGE);
    expect(await node.observe('web', PAGE)).toMatchObject({ state: 'running', converged: true });
    expect(await node.pid('web')).not.toBe(pid);
    await expect(stat(`/proc/${pid}/exe`)).rejects.toThrow();
  });

  test('a network link that was taken away, without a restart', async () => {
    await node.ensure('web', PAGE);
    const pid = await node.pid('web');
    await ip('link', 'del', (await node.attachment('web')).name);
    expect(await node.observe('web', PAGE)).toMatchObject({ state: 'running', converged: false });
    await node.converge('web', PAGE);
    expect(await node.observe('web', PAGE)).toMatchObject({ state: 'running', converged: true });
    expect(await node.pid('web')).toBe(pid);
    expect((await fetch(`http://[${(await node.attachment('web')).address}]/page`)).status).toBe(
      200,
    );
  });

  test('a namespace that lost its name, with a restart', async () => {
    await node.ensure('web', PAGE);
    await ip('netns', 'del', (await node.attachment('web')).name);
    expect(await node.observe('web', PAGE)).toMatchObject({ converged: false });
    await node.converge('web', PAGE);
    expect(await node.observe('web', PAGE)).toMatchObject({ state: 'running', converged: true });
    await vi.waitFor(async () => {
      expect((await fetch(`http://[${(await node.attachment('web')).address}]/page`)).status).toBe(
        200,
      );
    });
  });

  test('a start whose caller was killed before it could note it', async () => {
    await node.ensure('web', PAGE);
    const pid = await node.pid('web');
    const { id } = await node.current('web');
    await rm(join(node.runFolder, id, 'running.json'));
    const fifo = join(node.runFolder, id, 'runtime', id, 'exec.fifo');
    const mkfifo = (await findTool('mkfifo')) ?? 'mkfifo';
    await runCommand({ tool: mkfifo, argv: [fifo], purpose: 'make a fifo', signal: signal() });
    await node.ensure('web', PAGE);
    expect(await node.pid('web')).toBe(pid);
    expect(await node.observe('web', PAGE)).toMatchObject({ state: 'running', converged: true });
  });

  test('a stop whose caller was killed before it ended', async () => {
    await node.ensure('web', PAGE);
    const pid = await node.pid('web');
    const { store } = await node.containers();
    const current = await node.current('web');
    const run = await store.findRun(current);
    if (run === undefined) throw new Error('never started');
    await store.writeRun(current, { ...run, halted: true }, { isDurable: true });
    expect(await node.observe('web', PAGE)).toMatchObject({ converged: false });
    await node.converge('web', PAGE);
    expect(await node.observe('web', PAGE)).toMatchObject({ state: 'running', converged: true });
    expect(await node.pid('web')).not.toBe(pid);
  });

  test('a whole node after a loss of power', async () => {
    await node.ensure('web', { ...PAGE, env: { A: 'kept' } });
    await node.exec('web', ['/bin/touch', '/data/written']);
    await losePower();
    node.laterMs = CONTAINER_LIMITS.restartMsMax;
    const args = { ...PAGE, env: { A: 'kept' } };
    expect(await node.observe('web', args)).toMatchObject({ state: 'stopped', converged: false });
    await node.converge('web', args);
    expect(await node.observe('web', args)).toMatchObject({ state: 'running', converged: true });
    const list = await node.exec('web', ['/bin/sh', '-c', 'ls /data; echo $A; cat /www/page']);
    expect(list).toMatchObject({ stdout: 'written\nkept\nhello' });
  });

  test('a node that was halted: nothing runs meanwhile, and it all comes back', async () => {
    await node.ensure('web', PAGE);
    const record = await node.record('web', PAGE);
    const sal = await node.sal();
    await sal.resource.halt?.(record, signal());
    await sal.resource.halt?.(record, signal());
    expect(await node.capture()).toMatchObject({
      runFolders: {},
      runtime: {},
      network: {},
      cgroups: [],
    });
    expect((await node.observe('web', PAGE)).state).toBe('stopped');
    await node.converge('web', PAGE);
    expect(await node.observe('web', PAGE)).toMatchObject({
      state: 'running',
      info: { restarts: 0 },
    });
  });
});

describe('a job that ended well is not run again', () => {
  let runs: () => Promise<string>;
  const job = {
    command: ['/bin/sh', '-c', 'echo once >> /mnt/runs'],
    restart: 'on-failure',
    mounts: { '/mnt': contractRef('volume', 'data') },
  };

  beforeEach(async () => {
    const folder = await node.volume('data');
    runs = () => readFile(join(folder, 'runs'), 'utf8');
    await node.ensure('job', job);
    await vi.waitFor(expectRest);
  });

  async function expectRest(): Promise<void> {
    expect(await node.observe('job', job)).toMatchObject({
      state: 'stopped',
      converged: true,
      info: { exitCode: 0 },
    });
  }

  async function expectOneRun(): Promise<void> {
    await expectRest();
    await node.converge('job', job);
    await node.capture();
    expect(await runs()).toBe('once\n');
  }

  test('after its node was halted', async () => {
    const { resource } = await node.sal();
    await resource.halt?.(await node.record('job', job), signal());
    await expectOneRun();
  });

  test('after the undo of its replacement', async () => {
    const health = { tcp: { port: 81 }, within: '300ms' };
    const step = await node.openStep('job', { ...job, command: ['/bin/sleep', '1000'], health });
    expect(step.plan.action).toBe('replace');
    expect(await failureOf(step.apply())).toMatchObject({ code: 'E_HEALTH' });
    await step.undo();
    await expectOneRun();
  });
});

describe('stopping', () => {
  test('lets the process end by itself', async () => {
    const command = [
      '/bin/sh',
      '-c',
      'trap "echo bye > /mnt/bye; exit 0" TERM; while true; do sleep 0.05; done',
    ];
    const folder = await node.volume('data');
    const args = { command, mounts: { '/mnt': contractRef('volume', 'data') } };
    await node.ensure('web', args);
    await vi.waitFor(async () => {
      const status = await readFile(`/proc/${await node.pid('web')}/status`, 'utf8');
      expect(status).toMatch(/SigCgt:\s*[0-9a-f]*[4-7c-f][0-9a-f]{3}$/m);
    });
    await node.remove('web', args);
    expect(await readFile(join(folder, 'bye'), 'utf8')).toBe('bye\n');
  });

  test('does not wait for a process that gets no such signal', async () => {
    await node.ensure('web', PAGE);
    const started = performance.now();
    await node.remove('web', PAGE);
    expect(performance.now() - started).toBeLessThan(CONTAINER_LIMITS.stopGraceMs);
  });
});

describe('a replacement', () => {
  const next = { ...PAGE, files: { '/www/page': 'next' } };

  test('parks the old one until it is settled', async () => {
    await node.ensure('web', PAGE);
    const old = await node.current('web');
    const result = await node.ensure('web', next, 'b');
    expect(await (await fetch(`http://[${addressOf(result)}]/page`)).text()).toBe('next');
    const { store } = await node.containers();
    const rid = contractRid('container', 'web');
    expect((await store.list(rid)).map(({ id }) => id)).toContain(old.id);
    const sal = await node.sal();
    const early = sal.resource.settle?.(await node.record('web', PAGE), signal());
    await expect(early).rejects.toMatchObject({ code: 'E_SAL' });
    expect(await store.list(rid)).toHaveLength(2);
    await sal.resource.settle?.(await node.record('web', next), signal());
    await sal.resource.settle?.(await node.record('web', next), signal());
    expect(await store.list(rid)).toEqual([await node.current('web')]);
    expect(await (await fetch(`http://[${addressOf(result)}]/page`)).text()).toBe('next');
  });

  test('names the fields that differ', async () => {
    await node.ensure('web', PAGE);
    const sal = await node.sal();
    const verb = sal.verbs.find(({ verb: name }) => name === 'container.ensure');
    const { contractContext } = await import('@hypha/sal/contract');
    const call = node.call('web', { ...next, memory: '20MiB' });
    if (verb === undefined) throw new Error('no verb');
    const plan = await verb.plan(contractContext(verb, call), verb.parse(call.args));
    expect(plan).toMatchObject({ action: 'replace', differs: ['files./www/page', 'memory'] });
  });
});

test('what is left of a resource that nothing is known of is listed and removed', async () => {
  await node.ensure('web', PAGE);
  const { store } = await node.containers();
  await node.exec('web', ['/bin/true']);
  await losePower();
  const host = await node.host();
  for (const instance of await store.list())
    await host.pool.deleteSubvolume(`containers/${instance.id}`, signal());
  const sal = await node.sal();
  expect(await sal.resource.list(signal())).toHaveLength(1);
  await node.remove('web', PAGE);
  expect(await sal.resource.list(signal())).toEqual([]);
  expect(await node.capture()).toEqual(NO_TRACES);
});

/** Everything that does not outlast a reboot goes, in no order that a shutdown would have. */
async function losePower(): Promise<void> {
  const host = await node.host();
  const { runtime, store } = await node.containers();
  for (const instance of await store.list()) {
    const monitor = await findMonitor(host, instance);
    const status = await runtime.status(instance, signal());
    if (monitor !== undefined) process.kill(monitor, 'SIGKILL');
    if ('pid' in status) process.kill(status.pid, 'SIGKILL');
    await vi.waitFor(async () => {
      expect(await runtime.status(instance, signal())).not.toHaveProperty('pid');
    });
    await rm(store.exitPath(instance), { force: true });
    await run(host.tools.umount, join(host.runFolder, instance.id));
  }
  const { name } = await node.attachment('web');
  await ip('link', 'del', name);
  await ip('netns', 'del', name);
}

async function ip(...argv: readonly string[]): Promise<void> {
  const host = await node.host();
  await run(host.tools.ip, ...argv);
}

async function run(tool: string, ...argv: readonly string[]): Promise<void> {
  await runCommand({ tool, argv, purpose: argv.join(' '), signal: signal() });
}
