import type { Json } from '@hypha/protocol';
import { afterAll, expect, test } from 'vitest';
import { SandboxPool } from './sandbox-pool.ts';
import { endOf, limitsOf, programOf, script, turnsOf } from './testing/guest-driver.ts';

const pool = new SandboxPool();
afterAll(() => pool.close());

test.for([
  ['in a loop', `for (let n = 1; ; n++) if (n % 10_000 === 0) log('at', { n });`],
  [
    'in calls',
    `const f = (n) => { if (n % 1_000 === 0) log('at', { n }); }; for (let n = 1; ; n++) f(n);`,
  ],
  [
    'in promise jobs',
    `for (let n = 1; ; n++) { await null; if (n % 100 === 0) log('at', { n }); }`,
  ],
] as const)(
  'a script that computes %s without end ends at the same place every time',
  async ([, body]) => {
    const limits = limitsOf({ cpuMs: 60, outputBytes: 1024 * 1024 });
    const ends = [];
    for (let run = 0; run < 3; run++) {
      const [turn] = await turnsOf(pool, programOf(script(body), { limits }));
      ends.push({ end: turn?.end, logs: turn?.logs.length });
    }
    expect(ends[0]).toMatchObject({
      end: {
        ok: false,
        failure: { code: 'E_CPU', message: expect.stringMatching(/600000 steps/) },
      },
    });
    expect(ends[0]?.logs).toBeGreaterThan(10);
    expect(ends[1]).toEqual(ends[0]);
    expect(ends[2]).toEqual(ends[0]);
  },
);

/**
 * Everything a script reaches by properties, prototypes and accessors included, from its global object, its module
 * and what its syntax makes. An object is a line: where it was first found, and the names of its properties.
 */
const WALK = `import * as hypha from 'hypha';
const roots = {
  global: globalThis, hypha, meta: import.meta, error: new Error('x'), regexp: /x/, object: {}, array: [], text: '',
  number: 1, bigint: 1n, symbol: Symbol(), bool: true, arrow: () => {}, asyncArrow: async () => {},
  generator: function* () {}, asyncGenerator: async function* () {}, running: (function* () {})(),
  asyncRunning: (async function* () {})(), promise: (async () => {})(), arrayIterator: [].values(),
  mapIterator: new Map().values(), setIterator: new Set().values(), textIterator: ''[Symbol.iterator](),
  matches: ''.matchAll(/x/g), args: (function () { return arguments; })(), buffer: new ArrayBuffer(1),
};
const textOf = (key) => (typeof key === 'symbol' ? '@' + key.description.replace('Symbol.', '') : key);
const seen = new Set();
const lines = [];
const queue = Object.entries(roots);
for (let at = 0; at < queue.length; at++) {
  const [path, value] = queue[at];
  if (value === null || value === undefined) continue;
  const object = Object(value);
  if (seen.has(object)) continue;
  seen.add(object);
  const keys = Reflect.ownKeys(object).filter((key) => object !== roots.global || key !== 'roots');
  lines.push(path + ': ' + keys.map(textOf).sort().join(' '));
  queue.push([path + '.[proto]', Object.getPrototypeOf(object)]);
  for (const key of keys) {
    const { value: inner, get, set } = Object.getOwnPropertyDescriptor(object, key);
    const place = path + '.' + textOf(key);
    for (const next of [[place, inner], [place + '(get)', get], [place + '(set)', set]]) {
      if (typeof next[1] === 'object' || typeof next[1] === 'function') queue.push(next);
    }
  }
}
const isPlainFunction = (line) => line.endsWith(': length name');
export default () => lines.filter((line) => !isPlainFunction(line));`;

test('a script reaches nothing but what is on the list', async () => {
  const limits = limitsOf({ cpuMs: 5_000, outputBytes: 1024 * 1024 });
  const reached = (await endOf(pool, programOf(WALK, { limits }))) as Json[];
  await expect(`${reached.join('\n')}\n`).toMatchFileSnapshot('./testing/guest-world.txt');
});
