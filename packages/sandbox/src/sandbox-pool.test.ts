import { readdirSync, readFileSync } from 'node:fs';
import { afterEach, expect, test } from 'vitest';
import { SandboxPool } from './sandbox-pool.ts';
import { endOf, limitsOf, programOf, requestOf } from './testing/guest-driver.ts';

const pools: SandboxPool[] = [];
afterEach(async () => {
  await Promise.all(pools.splice(0).map((pool) => pool.close()));
});

function openPool(idleMax = 1): SandboxPool {
  const pool = new SandboxPool({ idleMax });
  pools.push(pool);
  return pool;
}

/** Process ids of this process's sandbox hosts. */
function hostPids(): number[] {
  return readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry))
    .filter((pid) => {
      try {
        const status = readFileSync(`/proc/${pid}/status`, 'utf8');
        return (
          new RegExp(`^PPid:\\s+${process.pid}$`, 'm').test(status) && !/^State:\s+Z/m.test(status)
        );
      } catch {
        return false;
      }
    })
    .map(Number);
}

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

test('scripts at once run in hosts of their own, and only as many as wanted are kept', async () => {
  const before = new Set(hostPids());
  const own = () => hostPids().filter((pid) => !before.has(pid)).length;
  const pool = openPool(2);
  const guests = await Promise.all([1, 2, 3].map(() => pool.openGuest(requestOf())));
  for (const guest of guests) await guest.start(programOf(ONE), never);
  expect(own()).toBe(3);
  await Promise.all(guests.map((guest) => guest.close()));
  await expect.poll(own).toBe(2);
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

test('a guest that is closed in the middle of a turn takes its host with it', async () => {
  const before = new Set(hostPids());
  const own = () => hostPids().filter((pid) => !before.has(pid));
  const pool = openPool();
  const guest = await pool.openGuest(requestOf());
  const [pid] = own();
  const limits = limitsOf({ cpuMs: 60_000 });
  const turn = guest.start(programOf('export default () => { for (;;); };', { limits }), never);
  const rejected = expect(turn).rejects.toMatchObject({ code: 'E_SANDBOX' });
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
