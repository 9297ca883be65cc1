/** `hypha run replay` and `hypha simulate` as an operator uses them: a script led again, or ahead, without an effect. */
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Json } from '@hypha/protocol';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type CliResult, Fleet } from './fixtures/fleet.ts';

const SCRIPT = `import { log, now, sleep, volume } from 'hypha';
interface Input { readonly size: string; readonly boom: boolean }
export const deployment = {
  name: 'web',
  input: { size: { type: 'string', default: '16MiB' }, boom: { type: 'bool', default: false } },
};
export default async function deploy({ size, boom }: Input) {
  const start = now();
  await volume('data', { size });
  await sleep('20ms');
  log('slept', { longEnough: now() - start >= 20, luck: Math.random() });
  if (boom) throw new Error('on purpose');
  await volume('cache', { size });
  return { start, luck: Math.random() };
}
`;
const SMALL = ['--cpus', '0.1', '--memory', '32MiB', '--storage', '128MiB'];

interface Applied {
  readonly run: string;
  readonly output: Json;
}

let fleet: Fleet;
/** Of the operator's own files; no fleet's state. */
let desk: string;
let script: string;
let good: Applied;
let bad: Applied;
beforeAll(async () => {
  fleet = await Fleet.start('--sals', 'simulated');
  desk = join(fleet.state, 'desk');
  mkdirSync(desk);
  script = write('web.ts', SCRIPT);
  [good, bad] = await Promise.all([applied('good'), applied('bad', '-i', 'boom=true')]);
});
afterAll(async () => fleet?.[Symbol.asyncDispose]());

function write(name: string, text: string): string {
  const file = join(desk, name);
  writeFileSync(file, text);
  return file;
}

const replay = (...args: string[]) => fleet.hypha('run', 'replay', ...args);
const simulate = (state: string, ...args: string[]) =>
  fleet.hyphaIn(join(desk, state), 'simulate', ...args);

async function applied(name: string, ...flags: string[]): Promise<Applied> {
  const { stdout } = await fleet.hypha('apply', script, '--name', name, ...SMALL, ...flags);
  const run = /run_[a-z2-7]{26}/.exec(stdout)?.[0] ?? '';
  return { run, output: JSON.parse(/^output +(.+)$/m.exec(stdout)?.[1] ?? 'null') };
}

/** All there is on the node: runs and resources. */
async function world(): Promise<unknown> {
  const [runs, resources] = await Promise.all([
    fleet.node.listRuns({ limit: 500 }),
    fleet.node.listResources({ limit: 500 }),
  ]);
  return { runs, resources };
}

function lines({ stdout }: CliResult): string[] {
  return stdout.split('\n').filter((line) => line !== '');
}

test('a finished run goes again as it went, from the services or from its bundle alone', async () => {
  const { run, output } = good;
  const before = await world();
  const bundle = join(desk, 'run.json');
  expect(await fleet.hypha('audit', 'export', run, '--out', bundle)).toMatchObject({ code: 0 });
  const [told, away] = await Promise.all([
    replay(run),
    fleet.hyphaIn(join(desk, 'nowhere'), 'run', 'replay', bundle),
  ]);
  expect(told, told.stderr).toMatchObject({ code: 0 });
  expect(told.stdout).toMatch(/^step +1 +volume\.ensure data … create +web\.ts:9:9$/m);
  expect(told.stdout).toMatch(/^log +slept {"longEnough":true,"luck":0\.\d+}$/m);
  expect(lines(told).slice(-2)).toEqual([
    `output        ${JSON.stringify(output)}`,
    'as recorded, to the end',
  ]);
  expect(away).toMatchObject({ code: 0, stdout: told.stdout });
  expect(await world()).toEqual(before);
});

test('a changed script shows the first call or end that is another, both sides and places', async () => {
  const { run } = good;
  const more = write('more.ts', SCRIPT.replace("'cache', { size }", "'cache', { size: '32MiB' }"));
  const other = write('other.ts', SCRIPT.replace('return { start,', 'return { from: start,'));
  const [call, end, described] = await Promise.all([
    replay(run, '--script', more),
    replay(run, '--script', other),
    replay(run, '--script', more, '-o', 'json'),
  ]);
  expect(call).toMatchObject({ code: 1 });
  expect(call.stdout).toMatch(/^step 3 +volume\.ensure cache +volume\.ensure cache$/m);
  expect(call.stdout).toMatch(/^at +web\.ts:13:9 +more\.ts:13:9$/m);
  expect(call.stdout).toMatch(/^size +"16MiB" +"32MiB"$/m);
  expect(end).toMatchObject({ code: 1 });
  expect(end.stdout).toMatch(/^the end +returned {"start":.+ returned {"from":/m);
  expect(described.code).toBe(1);
  expect(JSON.parse(described.stdout)).toMatchObject({
    same: false,
    difference: { step: 3, recorded: { at: 'web.ts:13:9' }, made: { at: 'more.ts:13:9' } },
  });
});

test('a failed run fails again at its place, and a corrected script goes past it', async () => {
  const { run } = bad;
  const fixed = write('fixed.ts', SCRIPT.replace('if (boom) throw', 'if (!boom) throw'));
  const [same, past, unknown] = await Promise.all([
    replay(run),
    replay(run, '--script', fixed),
    replay(`run_${'a'.repeat(26)}`),
  ]);
  expect(same).toMatchObject({ code: 0, stdout: expect.stringContaining('on purpose') });
  expect(same.stdout).toMatch(/^ +at web\.ts:12:\d+$/m);
  expect(past).toMatchObject({ code: 1 });
  expect(past.stdout).toMatch(/^step 3 +failed with E_SCRIPT: on purpose +volume\.ensure cache$/m);
  expect(unknown).toMatchObject({ code: 4, stderr: expect.stringContaining('E_NOT_FOUND') });
});

test('a simulation needs no fleet and leaves it alone; in one folder the next is an update', async () => {
  const before = await world();
  const first = await simulate('sim', script, '-o', 'json');
  expect(first, first.stderr).toMatchObject({ code: 0 });
  expect(JSON.parse(first.stdout)).toMatchObject({ state: 'succeeded', generation: 1, tookMs: 20 });
  const [next, struck, wrong] = await Promise.all([
    simulate('sim', script, '-i', 'size=32MiB'),
    simulate('struck', script, '--fail', 'cache=E_STORAGE', '-o', 'json'),
    simulate('wrong', write('wrong.ts', 'export default () => {\n  let = ;\n};\n')),
  ]);
  expect(next).toMatchObject({ code: 0, stdout: expect.stringContaining('data … update (size)') });
  expect(struck.code).toBe(1);
  expect(JSON.parse(struck.stdout)).toMatchObject({
    ...{ state: 'failed', problem: { code: 'E_STORAGE' }, undone: 2, leftovers: [] },
  });
  expect(wrong).toMatchObject({ code: 2, stderr: expect.stringContaining('wrong.ts:2:') });
  expect(readdirSync(desk)).not.toContain('nowhere');
  expect(await world()).toEqual(before);
});
