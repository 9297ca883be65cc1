import { afterAll, expect, test } from 'vitest';
import { SandboxPool } from './sandbox-pool.ts';
import { done, failed, programOf, script, turnsOf } from './testing/guest-driver.ts';

const pool = new SandboxPool();
afterAll(() => pool.close());

const BEGAN = 1_700_000_000_000;
const RID = 'b'.repeat(26);
const HANDLE = { $rid: RID, name: 'data', simulated: true };
const waiting = (body: string) =>
  script(body, 'volume, container, now, sleep, waitFor, undo, HyphaError');

test('time stands still between outcomes and is that of the last one', async () => {
  const source = waiting(`
    const seen = [now()];
    const note = () => seen.push(now());
    await Promise.all([volume('a', {}).catch(note), volume('b', {}).then(note)]);
    return seen;`);
  const [, , last] = await turnsOf(pool, programOf(source), [
    done(2, HANDLE, BEGAN + 5),
    { ...failed(1, 'E_SAL'), nowMs: BEGAN + 9 },
  ]);
  expect(last?.end).toEqual({ ok: true, output: JSON.stringify([BEGAN, BEGAN + 5, BEGAN + 9]) });
});

test('a sleep is a step on nothing', async () => {
  const source = waiting(`return [await sleep('3s'), now()];`);
  const [first, second] = await turnsOf(pool, programOf(source), [done(1, null, BEGAN + 3_000)]);
  expect(first?.calls).toMatchObject([
    { call: 1, verb: 'sleep', name: null, args: { duration: '3s' } },
  ]);
  expect(second?.end).toEqual({ ok: true, output: `[null,${BEGAN + 3_000}]` });
});

const AGREED = { everyMs: 2_000, untilMs: BEGAN + 5_000 };

test('a wait calls its function until that answers with something true', async () => {
  const source = waiting(`
    const found = await waitFor('a volume', async () => {
      const { sizeBytes } = await volume.get('data');
      return sizeBytes > 1 && { sizeBytes };
    }, { every: '2s', timeout: '5s' });
    return found;`);
  const turns = await turnsOf(pool, programOf(source), [
    done(1, AGREED, BEGAN + 10),
    done(2, { ...HANDLE, sizeBytes: 1 }, BEGAN + 20),
    done(3, null, BEGAN + 2_020),
    done(4, { ...HANDLE, sizeBytes: 2 }, BEGAN + 2_030),
  ]);
  const of = 'a volume';
  expect(turns.flatMap(({ calls }) => calls).map(({ verb, args }) => [verb, args])).toEqual([
    ['waitFor', { label: of, every: '2s', timeout: '5s' }],
    ['volume.get', {}],
    ['sleep', { untilMs: BEGAN + 2_020, of }],
    ['volume.get', {}],
  ]);
  expect(turns.at(-1)?.end).toEqual({ ok: true, output: '{"sizeBytes":2}' });
});

test('a wait takes a last look when its time is over and then fails at its own place', async () => {
  const source = waiting(`
    await waitFor('never', () => false, { every: '2s', timeout: '5s' });`);
  const turns = await turnsOf(pool, programOf(source), [
    done(1, AGREED, BEGAN + 3_500),
    done(2, null, BEGAN + 5_000),
  ]);
  expect(turns[1]?.calls).toMatchObject([{ verb: 'sleep', args: { untilMs: BEGAN + 5_000 } }]);
  expect(turns[2]?.end).toMatchObject({
    ok: false,
    failure: { code: 'E_TIMEOUT', message: expect.stringMatching(/never/), place: { line: 4 } },
  });
});

test('a wait that fails and that nobody looks at fails the script', async () => {
  const source = waiting(`
    waitFor('never', () => { throw new Error('broken'); });
    await volume('a', {});
    return 1;`);
  const turns = await turnsOf(pool, programOf(source), [done(1, AGREED), done(2, HANDLE)]);
  expect(turns.at(-1)?.end).toMatchObject({ ok: false, failure: { message: 'broken' } });
});

test.for([
  ['without a function', `waitFor('x')`],
  ['without a label', `waitFor(() => true)`],
] as const)('a wait %s is refused inside the script', async ([, call]) => {
  const source = waiting(`try { await ${call}; } catch (error) { return error.code; }`);
  const [turn] = await turnsOf(pool, programOf(source));
  expect(turn?.end).toEqual({ ok: true, output: '"E_ARGUMENT"' });
});

test('what the deployment has is found by name and has its verbs', async () => {
  const source = waiting(`
    const data = await volume.get('data');
    const web = await container.get('web');
    await data.snapshot('before');
    return web.url(80);`);
  const web = { $rid: RID, name: 'web', address: 'fd00::7', simulated: true };
  const turns = await turnsOf(pool, programOf(source), [
    done(1, { ...HANDLE, kind: 'volume' }),
    done(2, { ...web, kind: 'container' }),
    done(3, { name: 'before' }),
  ]);
  expect(turns.flatMap(({ calls }) => calls)).toMatchObject([
    { verb: 'volume.get', name: 'data', args: {} },
    { verb: 'container.get', name: 'web', args: {} },
    { verb: 'volume.snapshot', name: 'data' },
  ]);
  expect(turns.at(-1)?.end).toEqual({ ok: true, output: '"http://[fd00::7]/"' });
});

test('a kept run is undone step by step, and what could not be is told', async () => {
  const source = `import { undo } from 'hypha'; export default ({ run }) => undo(run);`;
  const kept = [
    { step: 4, verb: 'container.ensure', kind: 'container', name: 'web' },
    { step: 1, verb: 'volume.ensure', kind: 'volume', name: 'data' },
  ];
  const turns = await turnsOf(pool, programOf(source, { input: { run: 'run_a' } }), [
    done(1, kept),
    done(2, { leftover: null }),
    done(3, { leftover: 'in use' }),
  ]);
  expect(turns.flatMap(({ calls }) => calls).map(({ verb, args }) => [verb, args])).toEqual([
    ['run.kept', { run: 'run_a' }],
    ['run.undo', { run: 'run_a', step: 4 }],
    ['run.undo', { run: 'run_a', step: 1 }],
  ]);
  const output = { undone: 1, leftovers: [{ kind: 'volume', name: 'data', reason: 'in use' }] };
  expect(turns.at(-1)?.end).toEqual({ ok: true, output: JSON.stringify(output) });
});
