import { readFileSync } from 'node:fs';
import { HyphaError, type Json } from '@hypha/protocol';
import { afterAll, expect, test } from 'vitest';
import type { TimeSpent } from './cpu-deadline.ts';
import { confineHosts, hostCommand } from './host-command.ts';
import { SandboxHost } from './sandbox-host.ts';
import { SandboxPool } from './sandbox-pool.ts';
import { endOf, limitsOf, programOf, requestOf, script, seatIn } from './testing/guest-driver.ts';

const pool = new SandboxPool();
afterAll(() => pool.close());

const CPU_MS = 300;
/** The kill comes 250 ms after the budget; the rest is what it takes to notice. */
const OVER_MS_MAX = 500;

/** How a script ended, by code, and after how much CPU time: a busy machine must not fail these tests. */
async function endCode(source: string, changes = {}): Promise<{ code: Json; cpuMs: number }> {
  const limits = limitsOf({ cpuMs: CPU_MS, ...changes });
  pool.warm();
  const guest = await pool.openGuest(requestOf());
  try {
    const { signal } = new AbortController();
    const { end, cpuMs } = await guest.start(programOf(source, { limits }), signal);
    return { code: end === null ? 'waiting' : end.ok ? 'ok' : end.failure.code, cpuMs };
  } catch (error) {
    if (!(error instanceof HyphaError)) throw error;
    const spent = error.details as TimeSpent | undefined;
    return { code: error.code, cpuMs: spent?.cpuMs ?? 0 };
  } finally {
    await guest.close();
  }
}

async function expectCleanGuest(): Promise<void> {
  const probe = `export default () => [Object.keys(globalThis), [].polluted, [1, 2].map(String)];`;
  expect(await endOf(pool, programOf(probe))).toEqual([[], null, ['1', '2']]);
}

const asMain = (body: string) => `export default () => {\n${body}\n};\n`;

test.for([
  ['an endless loop', asMain('for (;;) {}')],
  [
    'an endless loop that catches',
    asMain('for (;;) { try { for (;;) {} } catch {} finally { for (;;) {} } }'),
  ],
  [
    'an endless generator',
    asMain(
      'function* g() { try { for (;;) yield 1; } finally { for (;;) {} } } for (const _ of g()) {}',
    ),
  ],
  ['an endless loop while loading', 'for (;;) {}\nexport default () => {};'],
  ['a regular expression that backtracks for ever', asMain(`/(a+)+$/.test('a'.repeat(60) + 'b')`)],
  [
    'a search no interrupt reaches',
    asMain('Array.prototype.indexOf.call({ length: 2 ** 53 - 1 }, 1)'),
  ],
  ['a join no interrupt reaches', asMain(`new Array(1e9) + ''`)],
  [
    'a sort no interrupt reaches',
    asMain('const a = []; a.length = 2 ** 32 - 1; a.reverse(); a.includes(3)'),
  ],
  ['promise chains without end', 'export default async () => { for (;;) await null; };'],
  [
    'many promise chains',
    asMain(
      'const step = (n) => Promise.resolve(n).then(step); for (let i = 0; i < 2000; i++) step(i); return new Promise(() => {});',
    ),
  ],
  [
    'a catch that goes on after the budget',
    `export default async () => {
    const spin = async () => { await null; for (;;) {} };
    for (;;) await spin().catch(() => { for (;;) {} }).finally(() => { for (;;) {} });
  };`,
  ],
  ['a toJSON that never returns', asMain('return { toJSON() { for (;;) {} } };')],
  ['a getter that never returns', asMain('return { get a() { for (;;) {} } };')],
  [
    'an error whose message never returns',
    asMain('throw { get message() { for (;;) {} }, toString() { for (;;) {} } };'),
  ],
  [
    'an error whose stack never returns',
    asMain(
      `const e = new Error(); Object.defineProperty(e, 'stack', { get() { for (;;) {} } }); throw e;`,
    ),
  ],
  ['a thenable that never ends', asMain('return { then(resolve) { resolve(this); } };')],
  ['a thenable whose then never returns', asMain('return { then() { for (;;) {} } };')],
] as const)('%s ends with E_CPU', { timeout: 20_000 }, async ([, source]) => {
  const { code, cpuMs } = await endCode(source);
  expect(code).toBe('E_CPU');
  expect(cpuMs).toBeLessThan(CPU_MS + OVER_MS_MAX);
  await expectCleanGuest();
});

test.for([
  ['long texts', asMain(`const a = []; for (;;) a.push('x'.repeat(1e6) + a.length);`)],
  ['arrays', asMain('const a = []; for (;;) a.push(new Array(10_000).fill(1));')],
  ['typed arrays', asMain('const a = []; for (;;) a.push(new Uint8Array(1e6));')],
  ['objects', asMain('const a = []; for (;;) a.push({ a: {}, b: [a.length] });')],
  ['one huge typed array', asMain('return new Uint8Array(2 ** 31 - 1).length;')],
  ['a map', asMain('const m = new Map(); for (let i = 0; ; i++) m.set(i, { i });')],
  ['promises', asMain('const all = []; for (;;) all.push(new Promise(() => {}).then(() => all));')],
  [
    'memory taken in promise jobs',
    'export default async () => { const a = []; const eat = async () => { for (;;) { await null; a.push(new Array(1000).fill(a)); } }; await Promise.all(Array.from({ length: 500 }, eat)); };',
  ],
] as const)(
  '%s without end are stopped by the memory cap',
  { timeout: 20_000 },
  async ([, source]) => {
    const { code, cpuMs } = await endCode(source, { cpuMs: 5_000 });
    expect(code).toBe('E_MEMORY');
    expect(cpuMs).toBeLessThan(5_000);
    await expectCleanGuest();
  },
);

test('memory is capped in the process, not only counted in the guest', async () => {
  const host = await SandboxHost.start(
    hostCommand(process.execPath, await confineHosts(process.execPath), 0),
  );
  try {
    const body = `const a = []; try { for (;;) a.push('x'.repeat(1e6) + a.length); } catch {} return 1;`;
    const limits = limitsOf({ cpuMs: 5_000, memoryBytes: 64 * 1024 * 1024 });
    const before = peakBytes(host);
    const guest = seatIn(host)();
    const { signal } = new AbortController();
    const { end } = await guest.start(programOf(asMain(body), { limits }), signal);
    expect(end).toEqual({ ok: true, output: '1' });
    expect(peakBytes(host) - before).toBeLessThan(1.5 * limits.memoryBytes);
  } finally {
    await host.stop();
  }
});

/** The most memory a host has ever held, bytes. */
function peakBytes(host: SandboxHost): number {
  const status = readFileSync(`/proc/${host.pid}/status`, 'utf8');
  return Number(/VmHWM:\s+(\d+) kB/.exec(status)?.[1]) * 1024;
}

test.for([
  ['recursion', asMain('const f = () => f() + 1; return f();')],
  [
    'recursion through JSON',
    asMain('let a = {}; for (let i = 0; i < 1e5; i++) a = { a }; return a;'),
  ],
  ['recursion through a getter', asMain('const o = { get a() { return this.a; } }; return o.a;')],
  ['recursion in a sort', asMain('const f = () => [2, 1].sort(f); f();')],
  [
    'brackets nested deep in the source',
    `export default () => ${'['.repeat(20_000)}${']'.repeat(20_000)};`,
  ],
] as const)('%s without end fails the script, not the host', async ([, source]) => {
  const { code } = await endCode(source, { cpuMs: 3_000 });
  expect(['E_SCRIPT', 'E_SCRIPT_SYNTAX']).toContain(code);
  await expectCleanGuest();
});

test('recursion that catches itself at every level is ended within the grace', async () => {
  const source = asMain('const f = () => { try { f(); } catch {} try { f(); } catch {} }; f();');
  const { code, cpuMs } = await endCode(source);
  expect(code).toBe('E_CPU');
  expect(cpuMs).toBeLessThan(CPU_MS + OVER_MS_MAX);
});

test.for([
  ['a returned text over the limit', asMain(`return 'x'.repeat(100_000);`)],
  ['a returned text over the limit in bytes only', asMain(`return '€'.repeat(30_000);`)],
  ['a returned text of many megabytes', asMain(`return 'x'.repeat(10_000_000);`)],
  ['log lines without end', script(`for (;;) log('again', { and: 'again' });`)],
  ['empty log lines without end', script(`for (;;) log('');`)],
  ['one huge log line', script(`log('x'.repeat(10_000_000));`)],
  ['log lines that are caught', script(`for (;;) try { log('x'.repeat(1000)); } catch {}`)],
] as const)('%s ends with E_OUTPUT', async ([, source]) => {
  const { code } = await endCode(source, { cpuMs: 5_000, memoryBytes: 128 * 1024 * 1024 });
  expect(code).toBe('E_OUTPUT');
  await expectCleanGuest();
});

test('log lines and returned value share one limit', async () => {
  const source = script(`log('x'.repeat(40_000)); return 'x'.repeat(40_000);`);
  expect((await endCode(source)).code).toBe('E_OUTPUT');
});

test.for([
  ['a proxy for itself', asMain('throw new (globalThis.Proxy ?? Object)({}, {});')],
  [
    'an object that throws when it is looked at',
    asMain(
      'throw { get name() { throw this; }, get message() { throw this; }, toString() { throw this; } };',
    ),
  ],
  ['a symbol', asMain(`throw Symbol('x');`)],
  ['an object without prototype', asMain('throw Object.create(null);')],
  [
    'an error with a stack that is no text',
    asMain('const e = new Error(); e.stack = { split: 1 }; throw e;'),
  ],
  [
    'an error with a forged stack',
    asMain(
      `const e = new Error(); e.stack = '    at x (/etc/passwd:1:1)\\n'.repeat(1e5); throw e;`,
    ),
  ],
  ['an error with a huge message', asMain(`throw new Error('x'.repeat(1e6));`)],
  [
    'an error whose prepareStackTrace throws',
    asMain('Error.prepareStackTrace = () => { throw 1; }; null.x;'),
  ],
] as const)('a script that throws %s fails with E_SCRIPT', async ([, source]) => {
  const { code } = await endCode(source);
  expect(code).toBe('E_SCRIPT');
  await expectCleanGuest();
});

test.for([
  ['JSON', `JSON.stringify = () => 'not json'; JSON.parse = () => ({});`],
  ['toJSON of everything', `Object.prototype.toJSON = () => { throw 1; };`],
  ['then of every promise', `Promise.prototype.then = function () { return this; };`],
  [
    'array and map methods',
    `for (const p of [Array.prototype, Map.prototype, Set.prototype, String.prototype]) for (const k of Object.getOwnPropertyNames(p)) try { p[k] = () => { throw 1; }; } catch {}`,
  ],
  [
    'setters on the prototype of everything',
    `for (const k of ['call', 'verb', 'name', 'args', 'ok', 'value', 'code', 'message', 'stack']) Object.defineProperty(Object.prototype, k, { set() { throw 1; }, get() { return 'x'; }, configurable: true });`,
  ],
  [
    'Reflect and Function',
    `Reflect.apply = () => {}; delete globalThis.Object; delete globalThis.Promise; Function;`,
  ],
] as const)('a script that replaces %s reaches only itself', async ([, body]) => {
  const source = script(
    `${body}\nawait volume('a', {});\nlog('x', { a: 1 });\nreturn { done: true };`,
  );
  const { code } = await endCode(source);
  expect(['waiting', 'E_SCRIPT', 'E_CPU']).toContain(code);
  await expectCleanGuest();
});

test.for([
  // In a loop without calls the engine knows the function, or what it last waited for, not the line.
  ['E_CPU', `export default () => {\n  spin();\n};\nfunction spin() {\n  for (;;);\n}\n`, 4],
  ['E_CPU', `export default async () => {\n  await null;\n  for (;;);\n};\n`, 2],
  ['E_OUTPUT', script(`for (;;) log('x');`), 3],
  ['E_HOST_CALLS', script(`for (;;) void volume('a', {});`), 3],
] as const)('a script that is ended with %s shows where it was', async ([code, source, line]) => {
  expect(await endOf(pool, programOf(source))).toMatchObject({ code, place: { line } });
});

test('what a guest leaves behind is gone for the next one', async () => {
  const source = asMain(
    `globalThis.left = 1; Array.prototype.polluted = 1; Object.freeze(Array.prototype); return 1;`,
  );
  expect((await endCode(source)).code).toBe('ok');
  await expectCleanGuest();
});
