/**
 * Scripts that would take a node down, hang it or fill it: the list of the security notes §2.2, and what else was
 * thought of. Each names how it may end.
 */
import type { ErrorCode } from '@hypha/protocol';
import { script } from './guest-driver.ts';

export interface HostileScript {
  readonly name: string;
  readonly source: string;
  /** `ok`: it returned, `waiting`: it waits for a step. */
  readonly ends: readonly (ErrorCode | 'ok' | 'waiting')[];
  readonly cpuMs?: number;
  readonly memoryMiB?: number;
}

type Row = readonly [name: string, source: string];

export const asMain = (body: string) => `export default () => {\n${body}\n};\n`;

const group = (
  ends: HostileScript['ends'],
  rows: readonly Row[],
  limits: Pick<HostileScript, 'cpuMs' | 'memoryMiB'> = {},
): HostileScript[] => rows.map(([name, source]) => ({ name, source, ends, ...limits }));

const ENDLESS: readonly Row[] = [
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
  ['a regular expression of nested groups', asMain(`/^((a*)*)*$/.test('a'.repeat(60) + 'b')`)],
  [
    'a regular expression that is quadratic in a long text',
    asMain(`/a*a*a*b/.test('a'.repeat(30_000))`),
  ],
  [
    'a search no interrupt reaches',
    asMain('Array.prototype.indexOf.call({ length: 2 ** 53 - 1 }, 1)'),
  ],
  [
    'an includes no interrupt reaches',
    asMain('Array.prototype.includes.call({ length: 2 ** 53 - 1 }, 1)'),
  ],
  ['a join no interrupt reaches', asMain(`new Array(1e9) + ''`)],
  [
    'a reverse no interrupt reaches',
    asMain('const a = []; a.length = 2 ** 32 - 1; a.reverse(); a.includes(3)'),
  ],
  [
    'a sort no interrupt reaches',
    asMain('for (;;) { const a = []; a.length = 2 ** 32 - 1; a.sort(); }'),
  ],
  ['a search in typed arrays', asMain('const a = new Uint8Array(8e6); for (;;) a.indexOf(1);')],
  [
    'a search for a long text in a long text',
    asMain(
      `const hay = 'a'.repeat(4e6), needle = 'a'.repeat(1e6) + 'b'; for (;;) hay.indexOf(needle);`,
    ),
  ],
  [
    'large numbers that are multiplied',
    asMain('let n = 3n ** 100_000n; for (;;) n = (n * n) >> 160_000n;'),
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
  [
    'recursion that catches itself at every level',
    asMain('const f = () => { try { f(); } catch {} try { f(); } catch {} }; f();'),
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
];

const GREEDY: readonly Row[] = [
  ['long texts', asMain(`const a = []; for (;;) a.push('x'.repeat(1e6) + a.length);`)],
  ['arrays', asMain('const a = []; for (;;) a.push(new Array(10_000).fill(1));')],
  ['typed arrays', asMain('const a = []; for (;;) a.push(new Uint8Array(1e6));')],
  ['objects', asMain('const a = []; for (;;) a.push({ a: {}, b: [a.length] });')],
  ['one huge typed array', asMain('return new Uint8Array(2 ** 31 - 1).length;')],
  ['one huge text', asMain(`return ('x'.repeat(2 ** 30 - 1) + 'y').length;`)],
  ['a map', asMain('const m = new Map(); for (let i = 0; ; i++) m.set(i, { i });')],
  ['a fill of no end', asMain('Array.prototype.fill.call({ length: 2 ** 53 - 1 }, 1);')],
  ['the JSON of millions', asMain('return JSON.stringify(new Array(5e6).fill(1)).length;')],
  ['a split into millions', asMain(`return 'x'.repeat(8e6).split('').length;`)],
  ['promises', asMain('const all = []; for (;;) all.push(new Promise(() => {}).then(() => all));')],
  [
    'memory taken in promise jobs',
    'export default async () => { const a = []; const eat = async () => { for (;;) { await null; a.push(new Array(1000).fill(a)); } }; await Promise.all(Array.from({ length: 500 }, eat)); };',
  ],
];

const DEEP: readonly Row[] = [
  ['recursion', asMain('const f = () => f() + 1; return f();')],
  [
    'recursion through JSON',
    asMain('let a = {}; for (let i = 0; i < 1e5; i++) a = { a }; return a;'),
  ],
  ['recursion through a getter', asMain('const o = { get a() { return this.a; } }; return o.a;')],
  ['recursion in a sort', asMain('const f = () => [2, 1].sort(f); f();')],
  ['recursion in a replace', asMain(`const f = () => 'x'.replace(/x/, f); f();`)],
  [
    'recursion in a toString',
    asMain(`const o = { toString() { return '' + this; } }; return '' + o;`),
  ],
  ['recursion in a constructor', asMain('class A { constructor() { new A(); } } new A();')],
  ['brackets nested deep in the source', `export default () => ${nest('[', 20_000, ']')};`],
  ['brackets nested deepest in the source', `export default () => ${'['.repeat(240_000)};`],
  ['parentheses nested deepest in the source', `export default () => ${'('.repeat(200_000)};`],
  ['JSON nested deep', asMain(`return JSON.parse('['.repeat(1e5) + ']'.repeat(1e5));`)],
];

const TALKATIVE: readonly Row[] = [
  ['a returned text over the limit', asMain(`return 'x'.repeat(100_000);`)],
  ['a returned text over the limit in bytes only', asMain(`return '€'.repeat(30_000);`)],
  ['a returned text of many megabytes', asMain(`return 'x'.repeat(30_000_000);`)],
  ['log lines without end', script(`for (;;) log('again', { and: 'again' });`)],
  ['empty log lines without end', script(`for (;;) log('');`)],
  ['one huge log line', script(`log('x'.repeat(10_000_000));`)],
  ['log lines that are caught', script(`for (;;) try { log('x'.repeat(1000)); } catch {}`)],
];

const STRANGE: readonly Row[] = [
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
  ['large powers', asMain('return String((3n ** 3_000_000n) ** 1_000n);')],
  ['large shifts', asMain('return String(1n << (1n << 40n));')],
  ['a module that is not there', `export default async () => await import('fs');`],
  ['a key that names the prototype', asMain(`return JSON.parse('{"__proto__":{"polluted":1}}');`)],
];

const REPLACING: readonly Row[] = [
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
].map(([what = '', body]) => [
  `a replaced ${what}`,
  script(`${body}\nawait volume('a', {});\nlog('x', { a: 1 });\nreturn { done: true };`),
]);

export const HOSTILE_SCRIPTS: readonly HostileScript[] = [
  ...group(['E_CPU'], ENDLESS),
  ...group(['E_MEMORY'], GREEDY, { cpuMs: 5_000 }),
  ...group(['E_SCRIPT', 'E_SCRIPT_SYNTAX'], DEEP, { cpuMs: 3_000 }),
  ...group(['E_OUTPUT'], TALKATIVE, { cpuMs: 5_000, memoryMiB: 128 }),
  ...group(['E_SCRIPT'], STRANGE),
  ...group(['waiting', 'E_SCRIPT', 'E_CPU'], REPLACING),
  {
    name: 'an error of no memory that is caught again and again',
    source: asMain(
      `const a = []; for (;;) try { for (;;) a.push('x'.repeat(1e5) + a.length); } catch {}`,
    ),
    ends: ['E_CPU', 'E_MEMORY'],
    cpuMs: 1_000,
  },
  {
    name: 'a text that doubles',
    source: asMain(`let s = 'x'; for (;;) s += s + s.length;`),
    ends: ['E_MEMORY', 'E_SCRIPT'],
  },
  {
    name: 'promises that fan out in jobs',
    source: asMain(
      `const fan = () => { Promise.resolve().then(fan); Promise.resolve().then(fan); }; fan();
       return new Promise(() => {});`,
    ),
    ends: ['E_CPU', 'E_MEMORY'],
    cpuMs: 1_000,
  },
  {
    name: 'a source of two megabytes',
    source: `${'a=1;'.repeat(500_000)}\nexport default () => 1;`,
    ends: ['E_CPU', 'E_MEMORY', 'E_SCRIPT'],
    cpuMs: 3_000,
  },
  {
    name: 'a rejection that nobody looks at',
    source: asMain(`Promise.reject(new Error('unseen')); (async () => { throw 1; })(); return 1;`),
    ends: ['ok'],
  },
];

function nest(open: string, depth: number, close: string): string {
  return `${open.repeat(depth)}${close.repeat(depth)}`;
}
