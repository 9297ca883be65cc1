import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { afterEach, expect, test } from 'vitest';
import { SANDBOX_LIMITS } from './limits.ts';
import { SandboxPool } from './sandbox-pool.ts';
import { endOf, hostPids, limitsOf, programOf, requestOf } from './testing/guest-driver.ts';

const pools: SandboxPool[] = [];
afterEach(async () => {
  await Promise.all(pools.splice(0).map((pool) => pool.close()));
});

function openPool(ageMsMax?: number): SandboxPool {
  const pool = new SandboxPool(ageMsMax === undefined ? {} : { ageMsMax });
  pools.push(pool);
  return pool;
}

const MIB = 1024 * 1024;
const ONE = 'export default () => 1;';
const never = new AbortController().signal;

test('scripts one after another run in the same host', async () => {
  const before = new Set(hostPids());
  const pool = openPool();
  for (let run = 0; run < 3; run++) {
    expect(await endOf(pool, programOf(ONE))).toBe(1);
    await expect.poll(() => hostPids().filter((pid) => !before.has(pid)).length).toBe(1);
  }
});

test('a host that dies at its start is no fault of the script', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'hypha-sandbox-'));
  try {
    const node = join(folder, 'node');
    await writeFile(node, '#!/bin/sh\nkill -9 $$\n', { mode: 0o755 });
    await chmod(folder, 0o755);
    const pool = new SandboxPool({ node });
    pools.push(pool);
    await expect(pool.openGuest(requestOf())).rejects.toMatchObject({ code: 'E_UNAVAILABLE' });
  } finally {
    await rm(folder, { recursive: true });
  }
});

test('a host that takes no more is replaced ahead of the next script', async () => {
  const before = new Set(hostPids());
  const own = () => hostPids().filter((pid) => !before.has(pid));
  const pool = openPool();
  const guests = [];
  for (let n = 0; n < SANDBOX_LIMITS.hostGuestsMax; n++) {
    guests.push(await pool.openGuest(requestOf()));
  }
  await expect.poll(() => own().length).toBe(2);
  guests.push(await pool.openGuest(requestOf()));
  for (const guest of guests) await guest.start(programOf(ONE), never);
  expect(own().length).toBe(2);
  await Promise.all(guests.map((guest) => guest.close()));
  await expect.poll(() => own().length).toBe(1);
});

test('a host takes no script after so many and is replaced', { timeout: 20_000 }, async () => {
  const before = new Set(hostPids());
  const own = () => hostPids().filter((pid) => !before.has(pid));
  const pool = openPool();
  const used = new Set<number>();
  for (let run = 0; run <= SANDBOX_LIMITS.hostRunsMax; run++) {
    const guest = await pool.openGuest(requestOf());
    if (run === 0) used.add(own()[0] ?? 0);
    if (run % 50 === 0) await guest.start(programOf(ONE), never);
    await guest.close();
  }
  await expect.poll(() => own().length).toBe(1);
  expect(used).not.toContain(own()[0]);
});

test('a host that is old takes no script, and ends when its last one has', async () => {
  const before = new Set(hostPids());
  const own = () => hostPids().filter((pid) => !before.has(pid));
  const pool = openPool(50);
  const guest = await pool.openGuest(requestOf());
  await guest.start(programOf(ONE), never);
  const [old] = own();
  await expect.poll(() => own().length).toBe(2);
  expect(await endOf(pool, programOf(ONE))).toBe(1);
  expect(own()).toContain(old);
  await guest.close();
  await expect.poll(() => own().includes(old ?? 0)).toBe(false);
});

test('a script that may use much gets a host of its own', async () => {
  const before = new Set(hostPids());
  const own = () => hostPids().filter((pid) => !before.has(pid)).length;
  const pool = openPool();
  const guests = await Promise.all([1, 2, 3].map(() => pool.openGuest(requestOf())));
  const [small, large, long] = guests;
  await small?.start(programOf(ONE), never);
  await expect.poll(own).toBe(1);
  await large?.start(programOf(ONE, { limits: limitsOf({ memoryBytes: 256 * MIB }) }), never);
  await long?.start(programOf(ONE, { limits: limitsOf({ cpuMs: 60_000 }) }), never);
  expect(own()).toBe(3);
  await Promise.all(guests.map((guest) => guest.close()));
  await expect.poll(own).toBe(1);
});

test('a host whose script had to be killed is replaced ahead of the next one', async () => {
  const before = new Set(hostPids());
  const own = () => hostPids().filter((pid) => !before.has(pid));
  const pool = openPool();
  const guest = await pool.openGuest(requestOf());
  const [killed] = own();
  const source = 'export default () => Array.prototype.indexOf.call({ length: 2 ** 53 - 1 }, 1);';
  const turn = guest.start(programOf(source, { limits: limitsOf({ cpuMs: 50 }) }), never);
  await expect(turn).rejects.toMatchObject({ code: 'E_CPU' });
  await guest.close();
  await expect.poll(() => own().length).toBe(1);
  expect(own()).not.toContain(killed);
  expect(await endOf(pool, programOf(ONE))).toBe(1);
});

test('a guest that is closed in the middle of a turn takes a host with it that nobody shares', async () => {
  const before = new Set(hostPids());
  const own = () => hostPids().filter((pid) => !before.has(pid));
  const pool = openPool();
  const guest = await pool.openGuest(requestOf());
  const [pid] = own();
  const limits = limitsOf({ cpuMs: 9_000 });
  const turn = guest.start(programOf('export default () => { for (;;); };', { limits }), never);
  const rejected = expect(turn).rejects.toMatchObject({ code: 'E_INTERNAL' });
  await setImmediate();
  await guest.close();
  await rejected;
  await expect.poll(() => own().includes(pid ?? 0)).toBe(false);
});

test('closing the pool ends every host, also one with a script in it', async () => {
  const before = new Set(hostPids());
  const pool = openPool();
  const guest = await pool.openGuest(requestOf());
  await guest.start(programOf('export default () => 1;'), never);
  pool.warm();
  await pool.close();
  expect(hostPids().filter((pid) => !before.has(pid))).toEqual([]);
  await expect(pool.openGuest(requestOf())).rejects.toMatchObject({ code: 'E_UNAVAILABLE' });
});

test('a guest is started once', async () => {
  const pool = openPool();
  const guest = await pool.openGuest(requestOf());
  await guest.start(programOf(ONE), never);
  await expect(guest.start(programOf(ONE), never)).rejects.toMatchObject({ code: 'E_INTERNAL' });
  await guest.close();
  await expect(guest.start(programOf(ONE), never)).rejects.toMatchObject({ code: 'E_INTERNAL' });
});

test('an export is read as JSON without running the default function', async () => {
  const pool = openPool();
  const source = `
    export const deployment = { name: 'web', input: { image: 'image' }, drop: undefined };
    export default () => { for (;;); };`;
  expect(await pool.readExport(source, 'deployment', never)).toEqual({
    name: 'web',
    input: { image: 'image' },
  });
  expect(await pool.readExport(ONE, 'deployment', never)).toBeUndefined();
});

test.for([
  ['does not parse', 'export const deployment = {;', 'E_SCRIPT_SYNTAX', { line: 1 }],
  ['throws while loading', '\nnull.x;\nexport const deployment = 1;', 'E_SCRIPT', { line: 2 }],
  ['does not end', 'for (;;);', 'E_CPU', undefined],
  ['exports a function', 'export const deployment = () => 1;', undefined, undefined],
  [
    'exports a cycle',
    'export const deployment = {}; deployment.a = deployment;',
    'E_SCRIPT',
    undefined,
  ],
  ['exports too much', `export const deployment = 'x'.repeat(1e6);`, 'E_OUTPUT', undefined],
  [
    'makes a call',
    `import { volume } from 'hypha'; await volume('a', {}); export const deployment = 1;`,
    'E_SCRIPT',
    undefined,
  ],
] as const)('reading an export of a script that %s', async ([, source, code, where]) => {
  const read = openPool().readExport(source, 'deployment', never);
  if (code === undefined) expect(await read).toBeUndefined();
  else await expect(read).rejects.toMatchObject({ code, ...(where && { where }) });
});
