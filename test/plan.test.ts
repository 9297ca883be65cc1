/** `hypha plan` and `apply --expect` as an operator uses them: what is shown is what happens, or nothing happens. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PlanDocument } from '@hypha/protocol';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type CliResult, Fleet } from './fixtures/fleet.ts';
import { SignedRuns } from './fixtures/signed-runs.ts';

const image = (digit: string) => `example.org/web@sha256:${digit.repeat(64)}`;
const SCRIPT = `import { container, volume } from 'hypha';
export const deployment = {
  name: 'web',
  input: {
    size: { type: 'string', default: '16MiB' },
    image: { type: 'string', default: '${image('a')}' },
    memory: { type: 'string', default: '16MiB' },
    more: { type: 'bool', default: true },
    command: { type: 'bool', default: false },
  },
};
export default async function deploy({ size, image, memory, more, command }) {
  const data = await volume('data', { size });
  const web = await container('web', { image, memory, cpus: 0.05, mounts: { '/data': data } });
  await container('still', { image: '${image('a')}', memory: '16MiB', cpus: 0.05 });
  if (more) await container('extra', { image, memory: '16MiB', cpus: 0.05 });
  if (more) await volume('cache', { size: '16MiB' });
  if (command) await web.exec(['/bin/true']);
  return 'up';
}
`;
const INPUT = {
  ...{ size: '16MiB', image: image('a'), memory: '16MiB', more: true, command: false },
};
const SMALL = ['--cpus', '0.3', '--memory', '128MiB', '--storage', '128MiB'];

let fleet: Fleet;
let runs: SignedRuns;
let script: string;
beforeAll(async () => {
  fleet = await Fleet.start('--sals', 'simulated');
  runs = await SignedRuns.open(fleet);
  script = join(fleet.state, 'web.ts');
  writeFileSync(script, SCRIPT);
});
afterAll(async () => fleet?.[Symbol.asyncDispose]());

const plan = (name: string, ...flags: string[]) =>
  fleet.hypha('plan', script, '--name', name, ...SMALL, ...flags);
const apply = (name: string, ...flags: string[]) =>
  fleet.hypha('apply', script, '--name', name, ...SMALL, ...flags);

/** What somebody else applied, without the time that a command takes. */
async function deployed(deployment: string, generation: number, input: Partial<typeof INPUT> = {}) {
  await runs.complete(
    runs.sign({
      ...{ deployment, generation, source: SCRIPT, caps: ['volume', 'container'] },
      input: { ...INPUT, ...input },
      limits: { resources: { milliCpus: 300, memoryBytes: 2 ** 27, storageBytes: 2 ** 27 } },
    }),
  );
}

/** The rows of the table, by resource. */
function changesIn({ code, stdout, stderr }: CliResult): Record<string, string> {
  expect({ code, stderr }).toMatchObject({ code: 0 });
  const rows = stdout.matchAll(/^(?:\d+)? *((?:volume|container)\S* \S+) +(\S.*)$/gm);
  return Object.fromEntries([...rows].map(([, resource, change]) => [resource, change]));
}

function hashIn({ stdout }: CliResult): string {
  const hash = /^hash +([0-9a-f]{64})$/m.exec(stdout)?.[1];
  if (hash === undefined) throw new Error(`no hash in:\n${stdout}`);
  return hash;
}

async function resourcesOf(deployment: string): Promise<string[]> {
  const { items } = await fleet.node.listResources({ deployment });
  return items.map(({ kind, name }) => `${kind} ${name}`).sort();
}

async function specHashOf(deployment: string, kind: string, name: string): Promise<string> {
  return (await fleet.node.resource({ realm: 'default', deployment, kind, name })).specHash;
}

test('of what is not there everything is made, by the apply that expects it and not before', async () => {
  const planned = await plan('fresh');
  expect(changesIn(planned)).toEqual({
    'volume data': 'create',
    'container web': 'create',
    'container still': 'create',
    'container extra': 'create',
    'volume cache': 'create',
  });
  expect(planned.stdout).toContain('in all        5 create');
  expect(planned.stderr).toContain(`--expect ${hashIn(planned)}`);
  expect(await resourcesOf('fresh')).toEqual([]);
  const applied = await apply('fresh', '--expect', hashIn(planned));
  expect(applied, applied.stderr).toMatchObject({ code: 0 });
  expect(await resourcesOf('fresh')).toHaveLength(5);
});

test('of what is there each step says what it changes, and what no step names is removed or kept', async () => {
  await deployed('there', 1);
  const before = await specHashOf('there', 'container', 'web');
  const [changed, smaller, same] = await Promise.all([
    plan('there', '-i', 'size=32MiB', '-i', `image=${image('b')}`, '-i', 'more=false'),
    plan('there', '-i', 'memory=32MiB', '-i', 'more=false', '--delete-data', 'cache'),
    plan('there', '-o', 'json'),
  ]);
  expect(changesIn(changed)).toEqual({
    'volume data': 'update (size)',
    'container web': 'replace (image)',
    'container still': 'no-op',
    'container extra': 'remove: no longer declared',
    'volume cache': 'retain: no longer declared, its data stays',
  });
  expect(changesIn(smaller)).toEqual({
    'volume data': 'no-op',
    'container web': 'update (memory)',
    'container still': 'no-op',
    'container extra': 'remove: no longer declared',
    'volume cache': 'delete-data: no longer declared, its data goes',
  });
  const document = PlanDocument.parse(JSON.parse(same.stdout));
  expect(document).toMatchObject({ state: 'complete', deployment: 'there', removals: [] });
  expect(document.steps.map(({ action }) => action)).toEqual(Array(5).fill('no-op'));
  expect(await specHashOf('there', 'container', 'web')).toBe(before);
  expect(await resourcesOf('there')).toHaveLength(5);
  // It is a run of its own, and takes no generation from its deployment.
  const shown = await fleet.hypha('run', 'plan', document.run, '-o', 'json');
  expect(shown.stdout).toBe(same.stdout);
  await deployed('there', 2);
});

test('an apply whose world has moved is refused with the difference, and does nothing', async () => {
  await deployed('moved', 1, { more: false });
  const flags = ['-i', 'memory=32MiB', '-i', 'more=false'];
  const planned = await plan('moved', ...flags);
  // Somebody else was faster.
  await deployed('moved', 2, { size: '32MiB' });
  const before = await specHashOf('moved', 'container', 'web');
  const refused = await apply('moved', ...flags, '--expect', hashIn(planned));
  expect(refused).toMatchObject({ code: 1, stdout: expect.stringContaining('E_PLAN_CHANGED') });
  expect(refused.stdout).toMatch(/ WAS +NOW\n/);
  expect(refused.stdout).toMatch(/step 1 +volume data +no-op +update \(size\)\n/);
  expect(refused.stdout).toMatch(/container extra +not planned +remove: no longer declared\n/);
  expect(refused.stdout).not.toContain('step   1');
  expect(await specHashOf('moved', 'container', 'web')).toBe(before);
  expect(await resourcesOf('moved')).toHaveLength(5);
});

test('a script that runs commands has no whole plan, and cannot be expected', async () => {
  const flags = ['-i', 'command=true'];
  const partial = await plan('partial', ...flags, '-o', 'json');
  expect(partial, partial.stderr).toMatchObject({ code: 0 });
  expect(JSON.parse(partial.stdout)).toMatchObject({
    state: 'partial',
    reason: expect.stringContaining('step 6, container.exec web'),
  });
  const file = join(fleet.state, 'partial.json');
  writeFileSync(file, partial.stdout);
  const refused = await apply('partial', ...flags, '--expect', `@${file}`);
  expect(refused).toMatchObject({ code: 3, stderr: expect.stringContaining('E_PLAN_PARTIAL') });
  expect(await resourcesOf('partial')).toEqual([]);
});

test('exit codes: a plan that fails is 1, a flag that it does not take or that is no hash is 2', async () => {
  const [failed, ...misused] = await Promise.all([
    plan('failing', '-i', 'image=latest'),
    plan('failing', '--expect', 'a'.repeat(64)),
    apply('failing', '--expect', 'latest'),
  ]);
  expect(failed).toMatchObject({ code: 1, stdout: expect.stringContaining('E_IMAGE') });
  expect(failed.stdout).toMatch(/at web\.ts:\d+:\d+, step 2/);
  expect(misused).toMatchObject([{ code: 2 }, { code: 2 }]);
});
