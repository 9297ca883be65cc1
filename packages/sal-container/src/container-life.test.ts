import { readdir, readFile, rm, stat, statfs, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Json } from '@hypha/protocol';
import { type HyphaError, isHyphaError } from '@hypha/protocol';
import { EFFECTS, findTool, type Observed, runCommand } from '@hypha/sal';
import { contractRef, contractRid } from '@hypha/sal/contract';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import type { Instance } from './container-host.ts';
import { CONTAINER_LIMITS } from './container-limits.ts';
import { findMonitor } from './monitor.ts';
import { attachmentOf } from './network-attachment.ts';
import { findLack, Scratch, type ScratchNode, signal } from './testing/scratch-node.ts';
import { NO_TRACES } from './testing/traces.ts';

const TMPFS_MAGIC = 0x01021994;

const lacking = await findLack();
let scratch: Scratch;
let node: ScratchNode;

beforeAll(async () => {
  if (lacking === undefined) scratch = await Scratch.create();
});

afterAll(() => scratch?.close());

beforeEach(async (context) => {
  if (lacking !== undefined) return context.skip(lacking);
  node = await scratch.createNode();
});

afterEach(() => node?.close());

const PAGE = { files: { '/www/page': 'hello' }, health: { http: { port: 80, path: '/page' } } };

interface Info {
  readonly health?: string;
  readonly exitCode?: number | null;
}

interface Args {
  readonly [key: string]: Json;
}

async function observe(
  name: string,
  args: Args,
): Promise<Omit<Observed, 'info'> & { readonly info: Info }> {
  const sal = await node.sal();
  const seen = await sal.resource.observe(await node.record(name, args), signal());
  return { ...seen, info: seen.info as unknown as Info };
}

async function converge(name: string, args: Args): Promise<void> {
  const sal = await node.sal();
  await sal.resource.converge(await node.record(name, args), signal());
}

async function remove(name: string, args: Args): Promise<void> {
  const sal = await node.sal();
  const options = { deleteData: false, signal: signal() };
  await sal.resource.remove(await node.record(name, args), options);
}

async function logsOf(name: string, args: Args): Promise<readonly string[]> {
  const sal = await node.sal();
  const options = { follow: false, tail: null, signal: signal() };
  const lines: string[] = [];
  for await (const line of sal.resource.logs?.(await node.record(name, args), options) ?? []) {
    lines.push(line);
  }
  return lines;
}

async function currentOf(name: string): Promise<Instance> {
  const { store } = await node.containers();
  const current = await store.findCurrent(contractRid('container', name));
  if (current === undefined) throw new Error(`no container ${name}`);
  return current;
}

async function pidOf(name: string): Promise<number> {
  const { runtime } = await node.containers();
  const status = await runtime.status(await currentOf(name), signal());
  if (!('pid' in status)) throw new Error(`${name} is ${status.state}`);
  return status.pid;
}

async function failureOf(work: Promise<unknown>): Promise<HyphaError> {
  const error = await work.then(
    () => undefined,
    (cause: unknown) => cause,
  );
  if (!isHyphaError(error)) throw new Error(`no HyphaError: ${String(error)}`);
  return error;
}

function addressOf(result: Json): string {
  return String((result as { address: string }).address);
}

/** From any hierarchy that has it, as the kernel has it. */
async function readCgroup(name: string, v1: string, v2: string): Promise<string> {
  const { group } = node;
  const { id } = await currentOf(name);
  const [controller = ''] = v1.split('.');
  const legacy = join('/sys/fs/cgroup', controller, group, id, v1);
  const unified = join('/sys/fs/cgroup', group, id, v2);
  return (await readFile(legacy, 'utf8').catch(() => readFile(unified, 'utf8'))).trim();
}

describe('a running container', () => {
  test('serves its page at the address that is derived for it', async () => {
    const result = await node.ensure('web', PAGE);
    const answer = await fetch(`http://[${addressOf(result)}]/page`);
    expect(await answer.text()).toBe('hello');
    expect(await observe('web', PAGE)).toMatchObject({
      state: 'running',
      converged: true,
      addresses: [addressOf(result)],
      info: { restarts: 0, health: 'healthy', pids: 1 },
    });
  });

  test('two of them are reachable, and still one when the other is gone', async () => {
    const [one, two] = [await node.ensure('one', PAGE), await node.ensure('two', PAGE)];
    for (const result of [one, two]) {
      expect((await fetch(`http://[${addressOf(result)}]/page`)).status).toBe(200);
    }
    await remove('one', PAGE);
    expect((await fetch(`http://[${addressOf(two)}]/page`)).status).toBe(200);
  });

  test('reaches the node and nothing beyond it', async () => {
    await node.ensure('web', PAGE);
    const routes = await node.exec('web', ['/bin/ip', '-6', 'route']);
    expect(routes).toMatchObject({ exitCode: 0 });
    const addresses = await node.exec('web', ['/bin/ip', '-6', 'addr']);
    expect((addresses as { stdout: string }).stdout).toContain('eth0');
    expect(await readFile('/proc/sys/net/ipv6/conf/all/forwarding', 'utf8')).toBe(forwarding);
  });

  test('is held to its limits by the kernel', async () => {
    const args = { ...PAGE, memory: '24MiB', cpus: 0.25, pids: 17 };
    await node.ensure('web', args);
    expect(await readCgroup('web', 'memory.limit_in_bytes', 'memory.max')).toBe(`${24 * 2 ** 20}`);
    expect(await readCgroup('web', 'pids.max', 'pids.max')).toBe('17');
    const quota = await readCgroup('web', 'cpu.cfs_quota_us', 'cpu.max');
    expect(quota.split(' ')[0]).toBe('25000');
    const { limitsSwap, cgroups } = scratch.machine;
    if (!limitsSwap || cgroups.layout === 'unified') return;
    const swap = await readCgroup('web', 'memory.memsw.limit_in_bytes', '');
    expect(swap).toBe(`${24 * 2 ** 20}`);
  });

  test('is ended, not the node, when it wants more memory than it may have', async () => {
    // dd reads into one buffer of 64 MiB.
    const command = ['/bin/dd', 'if=/dev/zero', 'of=/dev/null', 'bs=64M', 'count=1'];
    const args = { command, memory: '8MiB', restart: 'never' };
    await node.ensure('job', args);
    await vi.waitFor(async () => expect((await observe('job', args)).state).toBe('stopped'));
    expect((await observe('job', args)).info.exitCode).not.toBe(0);
  });

  test('has few rights: no new privileges, no devices, no kernel settings', async () => {
    await node.ensure('web', PAGE);
    const status = await readFile(`/proc/${await pidOf('web')}/status`, 'utf8');
    expect(status).toMatch(/NoNewPrivs:\s*1/);
    expect(status).toMatch(/CapEff:\s*00000000800405fb/);
    if (scratch.machine.seccomp !== null) expect(status).toMatch(/Seccomp:\s*2/);
    for (const command of [
      ['/bin/sh', '-c', 'echo 1 > /proc/sys/kernel/hostname'],
      ['/bin/sh', '-c', 'echo b > /proc/sysrq-trigger'],
      ['/bin/mount', '-t', 'tmpfs', 'x', '/tmp'],
      ['/bin/sh', '-c', 'echo 1 > /sys/kernel/mm/ksm/run'],
      ['/bin/dd', 'if=/dev/vda', 'of=/dev/null', 'count=1'],
    ]) {
      const outcome = (await node.exec('web', command)) as { exitCode: number };
      expect(outcome.exitCode, command.join(' ')).not.toBe(0);
    }
  });

  test('runs as the user, with the variables and in the folder that it was given', async () => {
    const command = [
      '/bin/sh',
      '-c',
      'id -u; id -g; echo $A $HOSTNAME; cat /proc/self/cwd/../etc/hosts; sleep 1000',
    ];
    const args = { command, user: '1000:1001', env: { A: 'b c' }, workdir: '/www' };
    const result = await node.ensure('web', args);
    await vi.waitFor(async () => expect(await logsOf('web', args)).toHaveLength(6));
    expect(await logsOf('web', args)).toEqual([
      '1000',
      '1001',
      'b c web',
      '127.0.0.1 localhost',
      '::1 localhost',
      `${addressOf(result)} web`,
    ]);
    const status = await readFile(`/proc/${await pidOf('web')}/status`, 'utf8');
    expect(status).toMatch(/CapEff:\s*0000000000000000/);
  });

  test('a read-only one cannot write to its root', async () => {
    await node.ensure('web', { ...PAGE, readonly: true });
    const touch = (await node.exec('web', ['/bin/touch', '/data/x'])) as { exitCode: number };
    expect(touch.exitCode).not.toBe(0);
    expect(await node.exec('web', ['/bin/touch', '/dev/shm/x'])).toMatchObject({ exitCode: 0 });
  });

  test('reads and writes the volumes it mounts', async () => {
    const folder = await node.volume('data');
    await writeFile(join(folder, 'in'), 'from outside');
    const args = { ...PAGE, mounts: { '/mnt': contractRef('volume', 'data') } };
    await node.ensure('web', args);
    expect(await node.exec('web', ['/bin/cat', '/mnt/in'])).toMatchObject({
      stdout: 'from outside',
    });
    await node.exec('web', ['/bin/sh', '-c', 'echo -n from inside > /mnt/out']);
    expect(await readFile(join(folder, 'out'), 'utf8')).toBe('from inside');
    await remove('web', args);
    expect((await readdir(folder)).toSorted()).toEqual(['in', 'out']);
  });
});

describe('files', () => {
  test('are on a tmpfs, for the eyes of the container only, and gone with it', async () => {
    const secret = `secret-${'s'.repeat(20)}`;
    const args = { ...PAGE, files: { ...PAGE.files, '/run/secrets/token': secret } };
    await node.ensure('web', args);
    expect(await node.exec('web', ['/bin/cat', '/run/secrets/token'])).toMatchObject({
      stdout: secret,
    });
    const folder = join(node.runFolder, (await currentOf('web')).id);
    expect((await statfs(folder)).type).toBe(TMPFS_MAGIC);
    expect((await stat(folder)).mode & 0o077).toBe(0);
    const write = await node.exec('web', ['/bin/sh', '-c', 'echo x > /run/secrets/token']);
    expect((write as { exitCode: number }).exitCode).not.toBe(0);
    expect(await searchPool(secret)).toEqual([]);
    await remove('web', args);
    await expect(stat(folder)).rejects.toThrow('ENOENT');
  });

  test('nor is env ever on the disk', async () => {
    const args = { ...PAGE, env: { TOKEN: `secret-${'e'.repeat(20)}` } };
    await node.ensure('web', args);
    expect(await searchPool(args.env.TOKEN)).toEqual([]);
  });
});

describe('health', () => {
  test('that does not come is E_HEALTH with the last verdict and the end of the log', async () => {
    const command = ['/bin/sh', '-c', 'echo started; echo waiting >&2; sleep 1000'];
    const args = { command, health: { http: { port: 81 }, within: '600ms' } };
    const error = await failureOf(node.ensure('web', args));
    expect(error).toMatchObject({ code: 'E_HEALTH', hint: 'hypha logs web' });
    expect(error.message).toMatch(/ECONNREFUSED/);
    expect(error.details).toMatchObject({ log: ['started', 'waiting'] });
  });

  test('of a container that ends fails at once', async () => {
    const command = ['/bin/sh', '-c', 'echo giving up; exit 9'];
    const args = { command, health: { tcp: { port: 80 }, within: '60s' } };
    const started = performance.now();
    const error = await failureOf(node.ensure('web', args));
    expect(performance.now() - started).toBeLessThan(30_000);
    expect(error.message).toMatch(/exited with 9/);
    expect(error.details).toMatchObject({ log: ['giving up'] });
  });

  test.each([
    ['http', { http: { port: 80, path: '/page' } }],
    ['tcp', { tcp: { port: 80 } }],
    ['exec', { exec: ['/bin/cat', '/www/page'] }],
    ['all of them', { http: { port: 80, path: '/page' }, tcp: { port: 80 }, exec: ['/bin/true'] }],
  ])('by %s', async (_title, health) => {
    await node.ensure('web', { ...PAGE, health });
  });

  test.each([
    ['http', { http: { port: 80, path: '/absent' } }, /HTTP 404/],
    ['tcp', { tcp: { port: 81 } }, /no connection to port 81/],
    ['exec', { exec: ['/bin/false'] }, /exited with 1/],
    ['one of several', { tcp: { port: 80 }, exec: ['/bin/false'] }, /exited with 1/],
  ])('not by %s', async (_title, health, message) => {
    const error = await failureOf(
      node.ensure('web', { ...PAGE, health: { ...health, within: '1s' } }),
    );
    expect(error).toMatchObject({ code: 'E_HEALTH' });
    expect(error.message).toMatch(message);
  });

  test('is seen by whoever observes', async () => {
    await node.ensure('web', PAGE);
    expect((await observe('web', PAGE)).info.health).toBe('healthy');
    const wrong = { ...PAGE, health: { http: { port: 80, path: '/absent' } } };
    await converge('web', wrong);
    await vi.waitFor(async () => {
      expect((await observe('web', wrong)).info.health).toBe('HTTP 404 from port 80');
    });
  });
});

describe('what cannot run', () => {
  test('a command that the image does not have', async () => {
    const error = await failureOf(node.ensure('web', { command: ['/bin/nothing-like-it'] }));
    expect(error).toMatchObject({ code: 'E_ARGUMENT', where: { path: 'command' } });
  });

  test('a volume that is not there', async () => {
    const args = { ...PAGE, mounts: { '/mnt': contractRef('volume', 'absent') } };
    const error = await failureOf(node.ensure('web', args));
    expect(error).toMatchObject({ code: 'E_REFERENCE', where: { path: 'mounts./mnt' } });
    expect(await node.capture()).toEqual(NO_TRACES);
  });
});

describe('restarts', () => {
  test('after a crash when they are due, and counts them', async () => {
    await node.ensure('web', PAGE);
    process.kill(await pidOf('web'), 'SIGKILL');
    await vi.waitFor(async () => {
      expect(await observe('web', PAGE)).toMatchObject({
        state: 'backing-off',
        converged: true,
        info: { restarts: 1, exitCode: 137 },
      });
    });
    await converge('web', PAGE);
    expect((await observe('web', PAGE)).state).toBe('backing-off');
    node.laterMs = CONTAINER_LIMITS.restartMsMax;
    expect(await observe('web', PAGE)).toMatchObject({ state: 'stopped', converged: false });
    await converge('web', PAGE);
    expect(await observe('web', PAGE)).toMatchObject({
      state: 'running',
      converged: true,
      info: { restarts: 1 },
    });
    const answer = await fetch(`http://[${(await observe('web', PAGE)).addresses[0]}]/page`);
    expect(await answer.text()).toBe('hello');
  });

  test('on failure, not after success', async () => {
    const failing = { command: ['/bin/sh', '-c', 'exit 3'], restart: 'on-failure' };
    await node.ensure('one', failing);
    await vi.waitFor(async () => {
      expect(await observe('one', failing)).toMatchObject({
        state: 'backing-off',
        info: { exitCode: 3 },
      });
    });
    const ending = { command: ['/bin/true'], restart: 'on-failure' };
    await node.ensure('two', ending);
    await vi.waitFor(async () => {
      expect(await observe('two', ending)).toMatchObject({
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
    await converge('job', args);
    const { store } = await node.containers();
    const runs = join(store.folder(await currentOf('job')), 'rootfs/data/runs');
    expect(await readFile(runs, 'utf8')).toBe('once\n');
  });
});

describe('repairs', () => {
  test('a container whose monitor was killed', async () => {
    await node.ensure('web', PAGE);
    const pid = await pidOf('web');
    const monitor = await findMonitor(await node.host(), await currentOf('web'));
    process.kill(monitor ?? 0, 'SIGKILL');
    await vi.waitFor(async () => {
      expect(await observe('web', PAGE)).toMatchObject({ state: 'failed', converged: false });
    });
    await converge('web', PAGE);
    expect(await observe('web', PAGE)).toMatchObject({ state: 'running', converged: true });
    expect(await pidOf('web')).not.toBe(pid);
    await expect(stat(`/proc/${pid}/exe`)).rejects.toThrow();
  });

  test('a network link that was taken away, without a restart', async () => {
    await node.ensure('web', PAGE);
    const pid = await pidOf('web');
    await ip('link', 'del', (await attachment()).name);
    expect(await observe('web', PAGE)).toMatchObject({ state: 'running', converged: false });
    await converge('web', PAGE);
    expect(await observe('web', PAGE)).toMatchObject({ state: 'running', converged: true });
    expect(await pidOf('web')).toBe(pid);
    expect((await fetch(`http://[${(await attachment()).address}]/page`)).status).toBe(200);
  });

  test('a namespace that lost its name, with a restart', async () => {
    await node.ensure('web', PAGE);
    await ip('netns', 'del', (await attachment()).name);
    expect(await observe('web', PAGE)).toMatchObject({ converged: false });
    await converge('web', PAGE);
    expect(await observe('web', PAGE)).toMatchObject({ state: 'running', converged: true });
    await vi.waitFor(async () => {
      expect((await fetch(`http://[${(await attachment()).address}]/page`)).status).toBe(200);
    });
  });

  test('a whole node after a loss of power', async () => {
    await node.ensure('web', { ...PAGE, env: { A: 'kept' } });
    await node.exec('web', ['/bin/touch', '/data/written']);
    await losePower();
    node.laterMs = CONTAINER_LIMITS.restartMsMax;
    const args = { ...PAGE, env: { A: 'kept' } };
    expect(await observe('web', args)).toMatchObject({ state: 'stopped', converged: false });
    await converge('web', args);
    expect(await observe('web', args)).toMatchObject({ state: 'running', converged: true });
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
    expect((await observe('web', PAGE)).state).toBe('stopped');
    await converge('web', PAGE);
    expect(await observe('web', PAGE)).toMatchObject({ state: 'running', info: { restarts: 0 } });
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
      const status = await readFile(`/proc/${await pidOf('web')}/status`, 'utf8');
      expect(status).toMatch(/SigCgt:\s*[0-9a-f]*[4-7c-f][0-9a-f]{3}$/m);
    });
    await remove('web', args);
    expect(await readFile(join(folder, 'bye'), 'utf8')).toBe('bye\n');
  });

  test('does not wait for a process that gets no such signal', async () => {
    await node.ensure('web', PAGE);
    const started = performance.now();
    await remove('web', PAGE);
    expect(performance.now() - started).toBeLessThan(CONTAINER_LIMITS.stopGraceMs);
  });
});

describe('a replacement', () => {
  const next = { ...PAGE, files: { '/www/page': 'next' } };

  test('parks the old one until it is settled', async () => {
    await node.ensure('web', PAGE);
    const old = await currentOf('web');
    const result = await node.ensure('web', next, 'b');
    expect(await (await fetch(`http://[${addressOf(result)}]/page`)).text()).toBe('next');
    const { store } = await node.containers();
    const rid = contractRid('container', 'web');
    expect((await store.list(rid)).map(({ id }) => id)).toContain(old.id);
    const sal = await node.sal();
    await sal.resource.settle?.(await node.record('web', PAGE), signal());
    expect(await store.list(rid)).toHaveLength(2);
    await sal.resource.settle?.(await node.record('web', next), signal());
    await sal.resource.settle?.(await node.record('web', next), signal());
    expect(await store.list(rid)).toEqual([await currentOf('web')]);
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
    expect(plan).toMatchObject({ action: 'replace', differs: ['files', 'memory'] });
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
  await remove('web', PAGE);
  expect(await sal.resource.list(signal())).toEqual([]);
  expect(await node.capture()).toEqual(NO_TRACES);
});

const forwarding = await readFile('/proc/sys/net/ipv6/conf/all/forwarding', 'utf8').catch(() => '');

async function attachment(): Promise<ReturnType<typeof attachmentOf>> {
  return attachmentOf(await node.host(), contractRid('container', 'web'));
}

async function ip(...argv: readonly string[]): Promise<void> {
  const tool = (await findTool('ip')) ?? 'ip';
  await runCommand({ tool, argv, purpose: argv.join(' '), signal: signal() });
}

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
    await EFFECTS.run({
      tool: host.tools.umount,
      argv: [join(host.runFolder, instance.id)],
      purpose: 'unmount',
      signal: signal(),
    });
  }
  await ip('link', 'del', (await attachment()).name);
  await ip('netns', 'del', (await attachment()).name);
}

/** Files below the pool that hold a text. */
async function searchPool(text: string): Promise<readonly string[]> {
  const { pool } = await node.host();
  const grep = (await findTool('grep')) ?? 'grep';
  const { stdout } = await runCommand({
    tool: grep,
    argv: ['-rlF', '--', text, pool.root],
    purpose: 'search the pool',
    exitCodes: [0, 1],
    signal: signal(),
  });
  return stdout.split('\n').filter((line) => line !== '');
}
