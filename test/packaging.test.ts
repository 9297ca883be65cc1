/** The units of `packaging/systemd`, as systemd itself judges them. Nothing is installed and nothing started. */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { waitFor } from '@hypha/testkit';
import { Redis } from 'ioredis';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { CoordinatorConfig } from '../packages/coordinator/src/config.ts';
import { LedgerConfig } from '../packages/ledger/src/config.ts';
import { SupervisorConfig } from '../packages/supervisor/src/config.ts';
import { root } from './fixtures/fleet.ts';

const run = promisify(execFile);
const ANALYZE = '/usr/bin/systemd-analyze';
const SYSTEM_UNITS = '/usr/lib/systemd/system';
const lack = existsSync(ANALYZE) ? undefined : 'needs systemd-analyze (Debian package systemd)';
const PACKAGING = join(root, 'packaging/systemd');
const units = readdirSync(PACKAGING).filter((name) => name.endsWith('.service'));
/** Where packaging/README.md installs this checkout. */
const INSTALLED = '/usr/lib/hypha/';

/** Everything a unit names to be executed or read of the installation. */
function installedFiles(unit: string): string[] {
  const text = readFileSync(join(PACKAGING, unit), 'utf8');
  return [...text.matchAll(/\/usr\/lib\/hypha\/(\S+)/g)].map(([, path = '']) => path);
}

function startOf(unit: string): string {
  const text = readFileSync(join(PACKAGING, unit), 'utf8');
  return /^ExecStart=(.*)$/m.exec(text)?.[1] ?? '';
}

/** A root folder of a machine on which Hypha is installed, as far as units can tell. */
let machine: string;
beforeAll(() => {
  machine = mkdtempSync(join(tmpdir(), 'hypha-machine-'));
  if (lack !== undefined) return;
  const folder = join(machine, SYSTEM_UNITS);
  mkdirSync(folder, { recursive: true });
  const isNeeded = (name: string) => /\.(?:target|slice|mount)$/.test(name);
  for (const name of readdirSync(SYSTEM_UNITS).filter(isNeeded)) {
    cpSync(join(SYSTEM_UNITS, name), join(folder, name));
  }
  for (const name of units) cpSync(join(PACKAGING, name), join(folder, name));
  const programs = units.flatMap(installedFiles).map((path) => join(INSTALLED, path));
  for (const path of ['/usr/bin/redis-server', ...programs]) {
    const file = join(machine, path);
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, '#!/bin/sh\n');
    chmodSync(file, 0o755);
  }
});
afterAll(() => rmSync(machine, { recursive: true, force: true }));

test.for(units)('%s is a unit without a fault', async (unit, context) => {
  if (lack !== undefined) context.skip(lack);
  const argv = [`--root=${machine}`, '--man=no', 'verify', join(machine, SYSTEM_UNITS, unit)];
  const { stdout, stderr } = await run(ANALYZE, argv);
  expect({ stdout, stderr }).toEqual({ stdout: '', stderr: '' });
});

test.for(units)('%s names only files there are', (unit) => {
  const named = installedFiles(unit).filter((path) => !path.startsWith('tools/'));
  expect(named.length).toBeGreaterThan(0);
  expect(named.filter((path) => !existsSync(join(root, path)))).toEqual([]);
});

/** Tenths of systemd's exposure level. The supervisor's says what mounts and containers cost. */
const EXPOSURE_MAX: Readonly<Record<string, number>> = {
  'hypha-ledger.service': 15,
  'hypha-coordinator.service': 15,
  'hypha-redis.service': 10,
  'hypha-redis-acl.service': 15,
  'hypha-supervisor.service': 75,
};

test.for(units)('%s is no more exposed than it has to be', async (unit, context) => {
  if (lack !== undefined) context.skip(lack);
  const threshold = EXPOSURE_MAX[unit];
  expect(threshold).toBeDefined();
  const argv = ['security', '--offline=yes', `--threshold=${threshold}`, '--no-pager'];
  await run(ANALYZE, [...argv, join(PACKAGING, unit)]);
});

test('every unit ends without core dumps, private files and no way to more privileges', () => {
  for (const unit of units) {
    const text = readFileSync(join(PACKAGING, unit), 'utf8');
    for (const line of ['LimitCORE=0', 'UMask=0077', 'NoNewPrivileges=yes']) {
      expect(text.split('\n'), unit).toContain(line);
    }
    expect(text, unit).not.toMatch(/^(?:Environment=.*(?:TOKEN|PASSWORD)|ExecStart=.*token)/im);
  }
});

test.for([
  ['hypha-ledger.service', LedgerConfig],
  ['hypha-coordinator.service', CoordinatorConfig],
  ['hypha-supervisor.service', SupervisorConfig],
] as const)('%s gives its service flags that it knows', ([unit, schema]) => {
  const [, program = ''] = startOf(unit).split('/src/main.ts ');
  const flags = [...program.matchAll(/--([a-z-]+)/g)].map(([, flag = '']) =>
    flag.replace(/-([a-z])/g, (_, letter: string) => letter.toUpperCase()),
  );
  expect(flags.length).toBeGreaterThan(0);
  expect(Object.keys(schema.shape)).toEqual(expect.arrayContaining(flags));
});

test('the Redis of its unit starts, and lets nobody in who has no name', async (context) => {
  if (!existsSync('/usr/bin/redis-server')) context.skip('needs redis-server');
  const acl = join(machine, 'users.acl');
  writeFileSync(acl, 'user default off\n');
  const folders = {
    RUNTIME_DIRECTORY: machine,
    STATE_DIRECTORY: machine,
    CREDENTIALS_DIRECTORY: machine,
  };
  const child = spawn('/bin/sh', ['-c', `exec ${startOf('hypha-redis.service')}`], {
    env: folders,
    stdio: 'ignore',
  });
  const ended = once(child, 'exit');
  try {
    const redis = new Redis({ path: join(machine, 'redis.sock'), maxRetriesPerRequest: null });
    redis.on('error', () => undefined);
    const answer = await waitFor(() => redis.ping().catch((error: Error) => error.message));
    redis.disconnect();
    expect(answer).toContain('NOAUTH');
  } finally {
    child.kill('SIGKILL');
    await ended;
  }
});
