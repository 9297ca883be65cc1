/**
 * What keeps harm on this node within bounds (security notes §2), as it is and not as it was meant: read
 * from the kernel's own account of the processes that run now.
 */
import { readdir, readFile, readlink, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Protection } from '@hypha/protocol';
import { isLoopback } from '@hypha/service';
import type { SupervisorConfig } from './config.ts';
import type { StateFolder } from './state-folder.ts';

const OTHERS = 0o077;
const NO_CAPABILITIES = /^0+$/;
const HOST_NAME = 'hypha-sandbox';

export interface ProtectionDeps {
  readonly config: SupervisorConfig;
  readonly folder: StateFolder;
  /** Whether anything here is more than simulated. */
  readonly hasRealSals: boolean;
  /** Process ids of the runners. */
  readonly runners: readonly number[];
}

export async function readProtection(deps: ProtectionDeps): Promise<Protection[]> {
  const { config, folder } = deps;
  return [
    redisUsers(config),
    redisWire(config),
    listener(config),
    await stateFolder(folder),
    await coreDumps(),
    await unitSandbox(),
    runnerUser(deps.hasRealSals),
    await sandboxHosts(deps.runners),
  ].filter((protection) => protection !== undefined);
}

function redisUsers({ redis, redisUsers: file }: SupervisorConfig): Protection {
  const what = 'redis users';
  if (file !== undefined) {
    return { what, ok: true, detail: 'supervisor and runners have their own' };
  }
  if (!redis.startsWith('/') && new URL(redis).username !== '') {
    return { what, ok: true, detail: 'one for supervisor and runners, by the URL' };
  }
  return {
    what,
    ok: false,
    detail: 'none: whoever reaches Redis, a runner included, may do anything there',
    hint: 'see hypha-redis-acl in packaging/README.md',
  };
}

function redisWire({ redis }: SupervisorConfig): Protection {
  const what = 'redis connection';
  if (redis.startsWith('/')) return { what, ok: true, detail: 'unix socket' };
  const { protocol, hostname } = new URL(redis);
  const isClosed = protocol === 'rediss:' || isLoopback(hostname.replace(/^\[|\]$/g, ''));
  if (isClosed) return { what, ok: true, detail: protocol === 'rediss:' ? 'TLS' : 'loopback' };
  return {
    what,
    ok: false,
    detail: `plain TCP to ${hostname}: the network can read and change jobs`,
    hint: 'use a unix socket, or rediss://',
  };
}

function listener({ host, tlsCert }: SupervisorConfig): Protection {
  const what = 'tls';
  if (tlsCert !== undefined) return { what, ok: true, detail: `HTTPS on ${host}` };
  if (isLoopback(host)) return { what, ok: true, detail: `plain HTTP, on ${host} only` };
  return {
    what,
    ok: false,
    detail: `plain HTTP on ${host}: the network can read scripts and answers`,
    hint: 'give the supervisor --tls-cert and --tls-key',
  };
}

async function stateFolder({ root, identity }: StateFolder): Promise<Protection> {
  const what = 'state folder';
  for (const path of [root, identity, join(identity, 'identity.pem')]) {
    const { mode } = await stat(path);
    if ((mode & OTHERS) === 0) continue;
    return {
      what,
      ok: false,
      detail: `others may use ${path}: mode ${(mode & 0o777).toString(8)}`,
      hint: `chmod go= ${path}`,
    };
  }
  return { what, ok: true, detail: `${root} is its owner's alone` };
}

async function coreDumps(): Promise<Protection | undefined> {
  const limits = await readProc('self/limits');
  const soft = /^Max core file size\s+(\S+)/m.exec(limits ?? '')?.[1];
  if (soft === undefined) return undefined;
  if (soft === '0') return { what: 'core dumps', ok: true, detail: 'off' };
  return {
    what: 'core dumps',
    ok: false,
    detail: 'on: a crash may write keys and passwords to disk',
    hint: 'start it with ulimit -c 0, hypha up, or packaging/systemd',
  };
}

/** Whether an init system has taken anything away: a filter of system calls, and no way to more rights. */
async function unitSandbox(): Promise<Protection | undefined> {
  const what = 'unit sandbox';
  const status = await readProc('self/status');
  if (status === undefined) return undefined;
  const isBound = fieldOf(status, 'NoNewPrivs') === '1' && fieldOf(status, 'Seccomp') === '2';
  if (isBound) return { what, ok: true, detail: 'system calls and privileges are bounded' };
  return {
    what,
    ok: false,
    detail: 'none: supervisor and runners may do all that their user may',
    hint: 'run it by the unit in packaging/systemd',
  };
}

function runnerUser(hasRealSals: boolean): Protection | undefined {
  const what = 'runner user';
  const uid = process.geteuid?.();
  if (uid === undefined) return undefined;
  if (uid !== 0) return { what, ok: true, detail: `user ${uid}` };
  if (hasRealSals) return { what, ok: true, detail: 'root, as volumes and containers need' };
  return {
    what,
    ok: false,
    detail: 'root, though what is simulated here does not need it',
    hint: 'start the node as a user of its own',
  };
}

/** Of the hosts that live; an idle runner keeps one warm. */
async function sandboxHosts(runners: readonly number[]): Promise<Protection | undefined> {
  const found = await Promise.all(runners.map(lacksOfHosts));
  const hosts = found.flat();
  if (hosts.length === 0) return undefined;
  const lacks = [...new Set(hosts.flat())];
  if (lacks.length === 0) {
    const detail = 'hosts have a user and a network of their own, and no capabilities';
    return { what: 'sandbox', ok: true, detail };
  }
  return {
    what: 'sandbox',
    ok: false,
    detail: `a script that breaks out finds ${lacks.join(', ')}`,
    hint: 'hypha doctor on the node says why',
  };
}

/** What each host of a runner was left. */
async function lacksOfHosts(runner: number): Promise<string[][]> {
  const lacks: string[][] = [];
  for (const pid of await childrenOf(runner)) {
    const status = await readProc(`${pid}/status`);
    if (status === undefined || fieldOf(status, 'Name') !== HOST_NAME) continue;
    lacks.push(await lacksOfHost(pid, status, runner));
  }
  return lacks;
}

/** Told for each thread that started them. */
async function childrenOf(pid: number): Promise<string[]> {
  const threads = await readdir(`/proc/${pid}/task`).catch(() => []);
  const lists = threads.map((thread) => readProc(`${pid}/task/${thread}/children`));
  return (await Promise.all(lists)).flatMap((list = '') => list.split(' ').filter(Boolean));
}

async function lacksOfHost(pid: string, status: string, runner: number): Promise<string[]> {
  const [own, parent] = await Promise.all([networkOf(pid), networkOf(`${runner}`)]);
  const user = fieldOf((await readProc(`${runner}/status`)) ?? '', 'Uid');
  const sets = ['CapEff', 'CapPrm', 'CapBnd'].map((name) => fieldOf(status, name));
  return [
    fieldOf(status, 'Uid') === user ? 'the user of its runner' : '',
    own === parent ? 'the network of its runner' : '',
    sets.every((set) => NO_CAPABILITIES.test(set)) ? '' : 'capabilities',
    fieldOf(status, 'NoNewPrivs') === '1' ? '' : 'set-user-id programs',
  ].filter(Boolean);
}

function networkOf(pid: string): Promise<string> {
  // Undefined for both would read as shared, which is the safe way to be wrong.
  return readlink(`/proc/${pid}/ns/net`).catch(() => '');
}

function fieldOf(status: string, name: string): string {
  return new RegExp(`^${name}:\\s*(.*)$`, 'm').exec(status)?.[1]?.trim() ?? '';
}

/** Undefined where there is no such file, or no /proc. */
function readProc(path: string): Promise<string | undefined> {
  return readFile(join('/proc', path), 'utf8').catch(() => undefined);
}
