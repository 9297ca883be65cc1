import { HyphaError } from '@hypha/protocol';
import { afterAll, expect, test } from 'vitest';
import { SandboxPool } from './sandbox-pool.ts';
import {
  done,
  endOf,
  failed,
  limitsOf,
  programOf,
  requestOf,
  script,
  turnsOf,
} from './testing/guest-driver.ts';

const pool = new SandboxPool();
afterAll(() => pool.close());

const RID = 'b'.repeat(26);
const DATA = { $rid: RID, kind: 'volume', name: 'data', sizeBytes: 1024, simulated: true };
const WEB = { $rid: RID, kind: 'container', name: 'web', address: 'fd00::7', simulated: true };

test('a script runs turn by turn: calls out, one outcome in', async () => {
  const source = script(`
    const data = await volume('data', { size: '1GiB' });
    await data.snapshot('before');
    const web = await container('web', { image: input.image, mounts: { '/data': data } });
    const { stdout } = await web.exec(['date'], { timeout: '5s' });
    log('ready', { web });
    return { url: web.url(8080, 'x'), home: web.url(80), stdout, size: data.sizeBytes, data };`);
  const turns = await turnsOf(pool, programOf(source, { input: { image: 'oci:/a:b' } }), [
    done(1, DATA),
    done(2, { volume: RID, name: 'before', simulated: true }),
    done(3, WEB),
    done(4, { exitCode: 0, stdout: 'now', stderr: '', simulated: true }),
  ]);
  const data = { $rid: RID, kind: 'volume', name: 'data' };
  const web = { $rid: RID, kind: 'container', name: 'web' };
  expect(turns.map((turn) => turn.calls)).toMatchObject([
    [{ call: 1, verb: 'volume.ensure', name: 'data', args: { size: '1GiB' } }],
    [{ call: 2, verb: 'volume.snapshot', name: 'data', args: { volume: data, name: 'before' } }],
    [
      {
        call: 3,
        verb: 'container.ensure',
        name: 'web',
        args: { image: 'oci:/a:b', mounts: { '/data': data } },
      },
    ],
    [
      {
        call: 4,
        verb: 'container.exec',
        name: 'web',
        args: { container: web, command: ['date'], timeout: '5s' },
      },
    ],
    [],
  ]);
  expect(turns.map((turn) => turn.end === null)).toEqual([true, true, true, true, false]);
  const last = turns.at(-1);
  expect(last?.logs).toEqual([{ message: 'ready', fields: { web } }]);
  expect(last?.end?.ok === true && JSON.parse(last.end.output)).toEqual({
    url: 'http://[fd00::7]:8080/x',
    home: 'http://[fd00::7]/',
    stdout: 'now',
    size: 1024,
    data,
  });
});

test('a call says where the script made it', async () => {
  const source = script(`
    const data = await volume('data', { size: '1GiB' });
    await data.snapshot('before');`);
  const turns = await turnsOf(pool, programOf(source), [done(1, DATA)]);
  const lines = source.split('\n');
  const places = turns.flatMap(({ calls }) => calls.map(({ place }) => place));
  expect(places.map((place) => lines[(place?.line ?? 0) - 1]?.trim())).toEqual([
    "const data = await volume('data', { size: '1GiB' });",
    "await data.snapshot('before');",
  ]);
});

test('a clone is declared as a volume of the same size that names its source', async () => {
  const source = script(`
    const data = await volume('data', { size: '1GiB' });
    await data.clone('copy', { snapshotBefore: true });`);
  const [, second] = await turnsOf(pool, programOf(source), [done(1, DATA)]);
  expect(second?.calls).toMatchObject([
    {
      call: 2,
      verb: 'volume.ensure',
      name: 'copy',
      args: {
        size: 1024,
        snapshotBefore: true,
        cloneOf: { $rid: RID, kind: 'volume', name: 'data' },
      },
    },
  ]);
});

test('calls made at once come in one turn and settle in the order of their outcomes', async () => {
  const source = script(`
    const order = [];
    await Promise.all(['a', 'b', 'c'].map(async (name) => {
      await volume(name, { size: 1 });
      order.push(name);
    }));
    return order;`);
  const turns = await turnsOf(pool, programOf(source), [
    done(3, DATA),
    done(1, DATA),
    done(2, DATA),
  ]);
  expect(turns[0]?.calls.map(({ call, name }) => [call, name])).toEqual([
    [1, 'a'],
    [2, 'b'],
    [3, 'c'],
  ]);
  expect(turns.at(-1)?.end).toEqual({ ok: true, output: '["c","a","b"]' });
});

test('a failed step is thrown as a HyphaError with its code, and can be handled', async () => {
  const source = script(`
    try {
      await volume('data', { size: 1 });
    } catch (error) {
      return [error instanceof HyphaError, error.code, error.message];
    }`);
  const turns = await turnsOf(pool, programOf(source), [failed(1, 'E_STORAGE', 'no room')]);
  expect(turns.at(-1)?.end).toEqual({ ok: true, output: '[true,"E_STORAGE","no room"]' });
});

test('a failed step that nobody handles fails the script with its code at the place of the call', async () => {
  const source = script(`  const data =\n    await volume('data', { size: 1 });`);
  const turns = await turnsOf(pool, programOf(source), [failed(1, 'E_STORAGE', 'no room')]);
  expect(turns.at(-1)?.end).toMatchObject({
    ok: false,
    failure: { code: 'E_STORAGE', message: 'no room', place: { line: 4 } },
  });
});

test('a script cannot claim the code of a step', async () => {
  const source = script(`throw new HyphaError('E_STORAGE', 'mine');`);
  expect(await endOf(pool, programOf(source))).toMatchObject({ code: 'E_SCRIPT', message: 'mine' });
});

test.for([
  ['never awaited', `volume('a', {}); await volume('b', {});`],
  ['chained without a catch', `volume('a', {}).then(() => 1); await volume('b', {});`],
  ['awaited only in a finally', `volume('a', {}).finally(() => {}); await volume('b', {});`],
] as const)('a failed step that is %s fails the script when it ends', async ([, body]) => {
  const turns = await turnsOf(pool, programOf(script(body)), [
    failed(1, 'E_STORAGE'),
    done(2, DATA),
  ]);
  expect(turns[1]?.end).toBeNull();
  expect(turns[2]?.end).toMatchObject({ ok: false, failure: { code: 'E_STORAGE' } });
});

test('a failed step that comes in after the script has ended fails it then', async () => {
  const [first, second] = await turnsOf(pool, programOf(script(`volume('a', {}); return 1;`)), [
    failed(1, 'E_STORAGE'),
  ]);
  expect(first?.end).toEqual({ ok: true, output: '1' });
  expect(second?.end).toMatchObject({ ok: false, failure: { code: 'E_STORAGE' } });
});

test.for([
  [
    'a catch that comes later',
    `const a = volume('a', {}); await volume('b', {}); return a.catch(() => 7);`,
  ],
  [
    'an await that comes later',
    `const a = volume('a', {}); await volume('b', {}); try { await a } catch { return 7 }`,
  ],
  [
    'a chain that ends in a catch',
    `volume('a', {}).then(() => 1).catch(() => {}); await volume('b', {}); return 7;`,
  ],
] as const)('a failed step is handled by %s', async ([, body]) => {
  const turns = await turnsOf(pool, programOf(script(body)), [
    failed(1, 'E_STORAGE'),
    done(2, DATA),
  ]);
  expect(turns.at(-1)?.end).toEqual({ ok: true, output: '7' });
});

test('an error has the line and column of the signed source and only frames of the script', async () => {
  const source = `import { log } from 'hypha';
function inner(value) {
  return value.missing.deeper;
}
export default () => {
  log('about to fail');
  inner({});
};
`;
  const end = await endOf(pool, programOf(source));
  expect(end).toMatchObject({ code: 'E_SCRIPT', place: { line: 3, column: 23 } });
  expect(end).toMatchObject({ message: "TypeError: cannot read property 'deeper' of undefined" });
  const { stack } = end as { stack: string };
  expect(stack.split('\n').map((frame) => frame.trim())).toEqual([
    'at inner (script.js:3:23)',
    'at default (script.js:7:8)',
  ]);
});

test.for([
  ['a syntax error', `const a = 1;\nconst b = = 2;\n`, { line: 2, column: 11 }],
  ['an unclosed brace', `export default () => {\n`, { line: 2, column: 1 }],
  ['an import of anything but hypha', `import fs from 'fs';\nexport default () => fs;\n`, null],
  [
    'an import that hypha does not have',
    `import { nosuch } from 'hypha';\nexport default nosuch;\n`,
    null,
  ],
] as const)('%s is E_SCRIPT_SYNTAX', async ([, source, place]) => {
  expect(await endOf(pool, programOf(source))).toMatchObject({ code: 'E_SCRIPT_SYNTAX', place });
});

test.for([
  ['has no default function', `export default 1;`, /no default function/],
  ['waits for what never happens', `export default () => new Promise(() => {});`, /never happen/],
  [
    'makes a call while loading',
    `import { volume } from 'hypha';\nvolume('a', {});\nawait 0;\nexport default () => {};`,
    /while loading/,
  ],
  ['throws null', `export default () => { throw null; };`, /^threw null$/],
  ['throws a text', `export default () => { throw 'oops'; };`, /^threw oops$/],
  ['returns a cycle', `export default () => { const a = {}; a.a = a; return a; };`, /not JSON/],
  ['returns a BigInt', `export default () => 1n;`, /not JSON/],
  ['returns an integer that JSON readers disagree on', `export default () => 2 ** 60;`, /2\^53/],
  ['returns half a character', `export default () => '\\ud800';`, /surrogate/],
  [
    'returns a value that nests too deep',
    `export default () => { let a = []; for (let i = 0; i < 99; i++) a = [a]; return a; };`,
    /deeper/,
  ],
] as const)('a script that %s fails with E_SCRIPT', async ([, source, message]) => {
  const end = await endOf(pool, programOf(source));
  expect(end).toMatchObject({ code: 'E_SCRIPT', message: expect.stringMatching(message) });
});

test.for([
  ['a name that is not a text', `volume(7, {})`],
  ['a cycle', `(() => { const a = {}; a.a = a; return volume('a', a); })()`],
  ['half a character', `volume('a', { size: '\\udfff' })`],
  ['a key that names the prototype', `volume('a', JSON.parse('{"__proto__":1}'))`],
  ['more text than a call holds', `volume('a', { size: 'x'.repeat(300_000) })`],
] as const)('a call with %s is refused inside the script', async ([, call]) => {
  const source = script(`try { await ${call}; } catch (error) { return error.code; }`);
  expect(await endOf(pool, programOf(source))).toBe('E_ARGUMENT');
});

test('a script that ended well but for a value of undefined returns null', async () => {
  expect(await endOf(pool, programOf(script(``)))).toBeNull();
});

test('a script sees its input, its node and the time its run began', async () => {
  const source = script('return { input, node, now: now() };');
  const { node, nowMs } = programOf('');
  expect(await endOf(pool, programOf(source, { input: { replicas: 2 } }))).toEqual({
    input: { replicas: 2 },
    node,
    now: nowMs,
  });
});

test('the global object holds nothing of the host, no clock and no way to run text', async () => {
  const names = await endOf(
    pool,
    programOf('export default () => Object.getOwnPropertyNames(globalThis);'),
  );
  const absent =
    `process require fetch console Date setTimeout setInterval queueMicrotask performance
    eval Function WeakRef FinalizationRegistry SharedArrayBuffer Atomics Proxy WebAssembly std os
    $host Buffer global Deno import`.split(/\s+/);
  expect(absent.filter((name) => (names as string[]).includes(name))).toEqual([]);
  const source = `export default () => [() => {}, async () => {}, function* () {}, async function* () {}]
    .map((f) => { try { return f.constructor('return 1')(); } catch (e) { return e.name; } });`;
  expect(await endOf(pool, programOf(source))).toEqual(Array(4).fill('TypeError'));
});

test('the same program takes the same turns, randomness included', async () => {
  const source = script(`
    const rolls = [Math.random(), Math.random()];
    const made = await Promise.allSettled([volume('a', { r: Math.random() }), volume('b', {})]);
    return { rolls, last: Math.random(), made: made.map((one) => one.status) };`);
  const outcomes = [done(2, DATA), failed(1, 'E_STORAGE')];
  const paths = await Promise.all(
    [1, 2, 3].map(async () => {
      const turns = await turnsOf(pool, programOf(source), outcomes);
      return turns.map(({ cpuMs: _, ...path }) => path);
    }),
  );
  expect(paths[1]).toEqual(paths[0]);
  expect(paths[2]).toEqual(paths[0]);
  const other = await turnsOf(pool, programOf(source, { seed: 'f'.repeat(64) }), outcomes);
  expect(other[0]?.calls).not.toEqual(paths[0]?.[0]?.calls);
});

test('random numbers are spread over zero to one', async () => {
  const source = `export default () => {
    const counts = Array(10).fill(0);
    for (let i = 0; i < 10_000; i++) counts[Math.floor(Math.random() * 10)]++;
    return counts;
  };`;
  const counts = (await endOf(pool, programOf(source))) as number[];
  expect(counts).toHaveLength(10);
  for (const count of counts) expect(Math.abs(count - 1000)).toBeLessThan(200);
});

test('one call more than allowed goes out to be refused; the next ends the script', async () => {
  const source = script(`for (;;) volume('a', {}).catch(() => {});`);
  const limits = limitsOf({ hostCalls: 5 });
  const [turn] = await turnsOf(pool, programOf(source, { limits }));
  expect(turn?.calls).toHaveLength(6);
  expect(turn?.end).toMatchObject({ ok: false, failure: { code: 'E_HOST_CALLS' } });
});

test('a guest whose signal is aborted in a turn rejects with the reason', async () => {
  const guest = await pool.openGuest(requestOf());
  const controller = new AbortController();
  const turn = guest.start(
    programOf('export default () => { for (;;); };', { limits: limitsOf({ cpuMs: 60_000 }) }),
    controller.signal,
  );
  const reason = new HyphaError('E_CANCELLED', 'enough');
  controller.abort(reason);
  await expect(turn).rejects.toBe(reason);
  await guest.close();
});

test('thousands of steps that do next to nothing are within the limits every script has', {
  timeout: 30_000,
}, async () => {
  const steps = 5_000;
  const source = `import { sleep } from 'hypha';
export default async () => { for (let i = 0; i < ${steps}; i++) await sleep(0); return 'done'; }`;
  const limits = limitsOf({ cpuMs: 2_000, hostCalls: 10_000 });
  const outcomes = Array.from({ length: steps }, (_, index) => done(index + 1, null));
  const turns = await turnsOf(pool, programOf(source, { limits }), outcomes);
  expect(turns.at(-1)?.end).toEqual({ ok: true, output: '"done"' });
});

test.each([
  ['9'.repeat(20), 'over every integer'],
  ['9'.repeat(400), 'over every number'],
])('a stack that a script made up ends the script, not its host', async (line) => {
  const source = `export default () => {
  const error = new Error('mine');
  error.stack = '    at f (script.js:${line}:1)';
  throw error;
};`;
  const [turn] = await turnsOf(pool, programOf(source));
  expect(turn?.end).toMatchObject({ ok: false, failure: { code: 'E_SCRIPT', place: null } });
});

test('names that are long as JSON only are refused like long arguments', async () => {
  const source = `import { volume } from 'hypha';
export default async () => {
  const calls = [];
  for (let i = 0; i < 90; i++) calls.push(volume('\\u0001'.repeat(4096), {}).catch(String));
  return (await Promise.all(calls.slice(-1)))[0];
};`;
  const [turn] = await turnsOf(pool, programOf(source));
  expect(turn?.calls.length).toBeLessThan(50);
});
