import { readdir, readFile, stat, statfs, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Json } from '@hypha/protocol';
import { findTool, runCommand } from '@hypha/sal';
import { contractRef } from '@hypha/sal/contract';
import { beforeAll, describe, expect, test, vi } from 'vitest';
import { nodeOfEachTest } from './testing/node-of-each-test.ts';
import type { Scratch } from './testing/scratch.ts';
import { PAGE, type ScratchNode, signal } from './testing/scratch-node.ts';
import { NO_TRACES } from './testing/traces.ts';

const TMPFS_MAGIC = 0x01021994;
const forwarding = await readFile('/proc/sys/net/ipv6/conf/all/forwarding', 'utf8').catch(() => '');

let scratch: Scratch;
let node: ScratchNode;
nodeOfEachTest((made, shared) => {
  [node, scratch] = [made, shared];
});
// As the services run: containers must not notice.
beforeAll(() => {
  process.umask(0o077);
});

function addressOf(result: Json): string {
  return String((result as { address: string }).address);
}

/** From any hierarchy that has it, as the kernel has it. */
async function readCgroup(name: string, v1: string, v2: string): Promise<string> {
  const { group } = node;
  const { id } = await node.current(name);
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
    // The server has a process for a request until its connection ends.
    await vi.waitFor(async () => {
      expect(await node.observe('web', PAGE)).toMatchObject({
        state: 'running',
        converged: true,
        addresses: [addressOf(result)],
        info: { restarts: 0, health: 'healthy', pids: 1 },
      });
    });
  });

  test('two of them are reachable, and still one when the other is gone', async () => {
    const [one, two] = [await node.ensure('one', PAGE), await node.ensure('two', PAGE)];
    for (const result of [one, two]) {
      expect((await fetch(`http://[${addressOf(result)}]/page`)).status).toBe(200);
    }
    await node.remove('one', PAGE);
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
    await vi.waitFor(async () => expect((await node.observe('job', args)).state).toBe('stopped'));
    const { info } = await node.observe('job', args);
    expect(info).toMatchObject({ reason: 'out of memory' });
    expect(info.exitCode).not.toBe(0);
  });

  test('has few rights: no new privileges, no devices, no kernel settings', async () => {
    await node.ensure('web', PAGE);
    const status = await readFile(`/proc/${await node.pid('web')}/status`, 'utf8');
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
    await vi.waitFor(async () => expect(await node.logs('web', args)).toHaveLength(6));
    expect(await node.logs('web', args)).toEqual([
      '1000',
      '1001',
      'b c web',
      '127.0.0.1 localhost',
      '::1 localhost',
      `${addressOf(result)} web`,
    ]);
    const status = await readFile(`/proc/${await node.pid('web')}/status`, 'utf8');
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
    await node.remove('web', args);
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
    const folder = join(node.runFolder, (await node.current('web')).id);
    expect((await statfs(folder)).type).toBe(TMPFS_MAGIC);
    expect((await stat(folder)).mode & 0o077).toBe(0);
    const write = await node.exec('web', ['/bin/sh', '-c', 'echo x > /run/secrets/token']);
    expect((write as { exitCode: number }).exitCode).not.toBe(0);
    expect(await searchPool(secret)).toEqual([]);
    await node.remove('web', args);
    await expect(stat(folder)).rejects.toThrow('ENOENT');
  });

  test('nor is env ever on the disk', async () => {
    const args = { ...PAGE, env: { TOKEN: `secret-${'e'.repeat(20)}` } };
    await node.ensure('web', args);
    expect(await searchPool(args.env.TOKEN)).toEqual([]);
  });
});

test('many at a time, of one image, and gone at a time', async () => {
  const names = Array.from({ length: 8 }, (_, index) => `many-${index}`);
  const results = await Promise.all(names.map((name) => node.ensure(name, PAGE)));
  for (const result of results) {
    expect((await fetch(`http://[${addressOf(result)}]/page`)).status).toBe(200);
  }
  expect(new Set(results.map(addressOf)).size).toBe(names.length);
  await Promise.all(names.map((name) => node.remove(name, PAGE)));
  expect(await node.capture()).toEqual(NO_TRACES);
});

test.each([
  ['on a tmpfs', '/dev/shm'],
  ['with a path longer than a socket may have', ''],
])('a run folder %s', async (_title, parent) => {
  const runParent = parent === '' ? join(scratch.folder, 'long'.repeat(30)) : parent;
  const other = await scratch.createNode({ runParent });
  try {
    await other.ensure('web', PAGE);
    await other.exec('web', ['/bin/true']);
    const sal = await other.sal();
    const record = await other.record('web', PAGE);
    expect(await sal.resource.observe(record, signal())).toMatchObject({ converged: true });
    await sal.resource.remove(record, { deleteData: false, signal: signal() });
    await expect(stat(other.runFolder)).rejects.toThrow('ENOENT');
    expect(await other.capture()).toEqual(NO_TRACES);
  } finally {
    await other.close();
  }
});

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
