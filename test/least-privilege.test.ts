/** What the processes of a fleet are given, and what they leave for others to find, as the kernel tells it. */
import { existsSync, lstatSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { isReadableByAll, waitFor } from '@hypha/testkit';
import { Redis } from 'ioredis';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Fleet } from './fixtures/fleet.ts';
import { processTree } from './fixtures/process-tree.ts';
import { SignedRuns } from './fixtures/signed-runs.ts';

const canConfine = process.geteuid?.() === 0 && existsSync('/usr/bin/setpriv');
/** In a checkout that others cannot read, hosts keep the user of their runner. */
const isOpen = isReadableByAll(fileURLToPath(import.meta.url));
const NOOP = 'export default async function deploy() { return null; }\n';

let fleet: Fleet;
beforeAll(async () => {
  fleet = await Fleet.start('--sals', 'simulated');
});
afterAll(async () => fleet?.[Symbol.asyncDispose]());

interface User {
  readonly name: string;
  readonly password: string;
}

function redisUsers(): { readonly supervisor: User; readonly runner: User } {
  const file = join(fleet.state, 'nodes', 'node-1', 'redis-users.json');
  return JSON.parse(readFileSync(file, 'utf8'));
}

/** Pids of what `up` started, with what that started; not `up` itself. */
function services(): number[] {
  return processTree(fleet.upPid).filter((pid) => pid !== fleet.upPid);
}

function read(pid: number, file: string): string {
  return readFileSync(`/proc/${pid}/${file}`, 'utf8');
}

function field(pid: number, name: string): string {
  return new RegExp(`^${name}:\\s*(.*)$`, 'm').exec(read(pid, 'status'))?.[1] ?? '';
}

/** The warm host of the idle runner. */
function findHost(): number | undefined {
  return services().find((pid) => field(pid, 'Name') === 'hypha-sandbox');
}

function filesBelow(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    return entry.isDirectory() ? [path, ...filesBelow(path)] : [path];
  });
}

test('nothing in the state folder is for anybody else', () => {
  const open = [fleet.state, ...filesBelow(fleet.state)]
    .filter((path) => (lstatSync(path).mode & 0o077) !== 0)
    .map((path) => path.slice(fleet.state.length));
  expect(open).toEqual([]);
});

test('no process dumps core, and what they write is closed to others', () => {
  const pids = services();
  // Ledger, coordinator, Redis, supervisor, runner.
  expect(pids.length).toBeGreaterThanOrEqual(5);
  for (const pid of pids) {
    const what = read(pid, 'cmdline').replaceAll('\0', ' ');
    expect(read(pid, 'limits'), what).toMatch(/^Max core file size\s+0\s+0\s/m);
    expect(field(pid, 'Umask'), what).toBe('0077');
  }
});

test('Redis passwords are in no command line, in no log and not in the ACL file', async () => {
  const runs = await SignedRuns.open(fleet);
  await runs.complete(runs.sign({ deployment: 'noop', generation: 1, source: NOOP }));
  const { supervisor, runner } = redisUsers();
  const places = [
    ...services().map((pid) => read(pid, 'cmdline')),
    ...filesBelow(join(fleet.state, 'log')).map((path) => readFileSync(path, 'utf8')),
    readFileSync(join(fleet.state, 'redis', 'users.acl'), 'utf8'),
  ];
  for (const { password } of [supervisor, runner]) {
    expect(places.filter((text) => text.includes(password))).toEqual([]);
  }
});

test('Redis knows its two users, and for nobody is there a way to all of it', async () => {
  const path = join(fleet.state, 'run', 'redis.sock');
  const { supervisor, runner } = redisUsers();
  for (const user of [{}, named(supervisor), named(runner)]) {
    const redis = new Redis({ path, ...user, maxRetriesPerRequest: null });
    redis.on('error', () => undefined);
    try {
      await expect(redis.call('FLUSHALL')).rejects.toThrow(/NOAUTH|NOPERM/);
      await expect(redis.call('CONFIG', 'GET', 'dir')).rejects.toThrow(/NOAUTH|NOPERM/);
    } finally {
      redis.disconnect();
    }
  }
});

const named = ({ name, password }: User) => ({ username: name, password });

test('scripts run without rights or network, as a user of their own where that can be', async ({
  skip,
}) => {
  if (!canConfine) skip('needs root and util-linux');
  const host = await waitFor(findHost, { what: 'a warm sandbox host' });
  const uid = Number(field(host, 'Uid').split('\t')[0]);
  if (isOpen) expect(uid).toBeGreaterThan(0x7000_0000);
  else expect(uid).toBe(0);
  expect(field(host, 'CapEff')).toBe('0000000000000000');
  expect(field(host, 'CapBnd')).toBe('0000000000000000');
  expect(field(host, 'NoNewPrivs')).toBe('1');
  expect(read(host, 'environ')).toBe('');
  const interfaces = read(host, 'net/dev').split('\n').slice(2).filter(Boolean);
  expect(interfaces.map((line) => line.trim().split(':')[0])).toEqual(['lo']);
});

test('doctor says of the node what it has, and what only an init system could give it', async () => {
  await waitFor(findHost, { what: 'a warm sandbox host' });
  const { code, stdout } = await fleet.hypha('doctor', '-o', 'json');
  expect(code).toBe(0);
  const found = JSON.parse(stdout) as { what: string; state: string; detail: string }[];
  const ofNode = found.filter(({ what }) => what.startsWith('node-1'));
  const inOrder = ofNode.find(({ what }) => what === 'node-1')?.detail;
  for (const what of ['redis users', 'redis connection', 'tls', 'state folder', 'core dumps']) {
    expect(inOrder).toContain(what);
  }
  if (canConfine && isOpen) expect(inOrder).toContain('sandbox');
  else
    expect(ofNode).toContainEqual(
      expect.objectContaining({ what: 'node-1 sandbox', state: 'warn' }),
    );
  expect(ofNode).toContainEqual(
    expect.objectContaining({ what: 'node-1 unit sandbox', state: 'warn' }),
  );
});

test('a fleet that is started again has the same users and works', async () => {
  const before = redisUsers();
  await fleet.down();
  await fleet.up();
  expect(redisUsers()).toEqual(before);
  const runs = await SignedRuns.open(fleet);
  // Throws unless it succeeded.
  await runs.complete(runs.sign({ deployment: 'noop', generation: 2, source: NOOP }));
});
