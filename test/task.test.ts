/** `hypha task` and `hypha exec` as an operator uses them: work on what a deployment has, and nothing else. */
import { readdirSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Fleet } from './fixtures/fleet.ts';
import { SignedRuns } from './fixtures/signed-runs.ts';

const IMAGE = `example.org/web@sha256:${'a'.repeat(64)}`;
const WEB = `import { container, volume } from 'hypha';
export default async () => {
  const data = await volume('data', { size: '16MiB' });
  await volume('cache', { size: '16MiB' });
  const mounts = { '/data': data };
  await container('web', { image: '${IMAGE}', memory: '16MiB', cpus: 0.01, mounts });
};
`;
/** Names one volume and the container only: the other volume is not declared, and still stays. */
const TASK = `import { container, log, volume } from 'hypha';
export const deployment = {
  name: 'web', input: { then: { type: 'string', default: 'nothing' } },
};
export default async function work({ then }) {
  const [data, web] = await Promise.all([volume.get('data'), container.get('web')]);
  await data.snapshot(then);
  const { exitCode } = await web.exec(['/bin/true']);
  log('worked', { exitCode });
  if (then === 'declare') await volume('another', { size: '16MiB' });
  if (then === 'fail') throw new Error('on purpose');
  return { exitCode };
}
`;

let fleet: Fleet;
let task: string;
beforeAll(async () => {
  fleet = await Fleet.start('--sals', 'simulated');
  task = join(fleet.state, 'task.ts');
  writeFileSync(task, TASK);
  const runs = await SignedRuns.open(fleet);
  const caps = ['volume', 'container'];
  await runs.complete(runs.sign({ deployment: 'web', generation: 1, source: WEB, caps }));
});
afterAll(async () => fleet?.[Symbol.asyncDispose]());

/** Everything the deployment has, and which revision of it counts. */
async function held(): Promise<unknown> {
  const { items } = await fleet.node.listResources({ deployment: 'web' });
  const resources = items.map(({ kind, name, status, specHash }) => ({
    ...{ kind, name, status, specHash },
  }));
  const { generation, revision } = await fleet.coordinator.deployment('default', 'web');
  return { resources, generation, revision };
}

/** On the node, by name: what tells of a resource lists no snapshots. */
function snapshots(): string[] {
  const files = readdirSync(join(fleet.state, 'nodes'), { recursive: true, encoding: 'utf8' });
  return files
    .filter((file) => /\/snapshot\/\w+\/[^/]+\.json$/.test(file))
    .map((file) => basename(file, '.json'));
}

test('a task works on what is there, and neither prunes nor counts', async () => {
  const before = await held();
  const worked = await fleet.hypha('task', task, '-i', 'then=first', '-o', 'json');
  expect(worked, worked.stderr).toMatchObject({ code: 0 });
  expect(JSON.parse(worked.stdout)).toMatchObject({
    ...{ mode: 'task', state: 'succeeded', steps: 4, output: { exitCode: 0 } },
  });
  expect(await held()).toEqual(before);
  expect(snapshots()).toEqual(['first']);
});

test.for([
  ['declares', 'declare', 'E_ARGUMENT'],
  ['fails', 'fail', 'E_SCRIPT'],
] as const)('a task that %s is undone', async ([, then, code]) => {
  const [before, had] = [await held(), snapshots()];
  const failed = await fleet.hypha('task', task, '-i', `then=${then}`);
  expect(failed).toMatchObject({ code: 1, stdout: expect.stringContaining(code) });
  expect(failed.stdout).toMatch(/at task\.ts:\d+:\d+/);
  expect(failed.stdout).toMatch(/undo +3 done volume data/);
  expect(await held()).toEqual(before);
  expect(snapshots()).toEqual(had);
});

test('a task needs a deployment that is there', async () => {
  const lost = await fleet.hypha('task', task, '--name', 'nowhere');
  expect(lost).toMatchObject({ code: 4, stderr: expect.stringContaining('E_NOT_FOUND') });
});

test('a command runs in a container, and ends as it ends', async () => {
  const before = await held();
  const [shown, found, described] = await Promise.all([
    fleet.hypha('exec', 'web/web', '--', '/bin/true', '--state', 'elsewhere'),
    fleet.hypha('exec', 'web', '--', '/bin/true'),
    fleet.hypha('exec', '-d', 'web', '-o', 'json', 'web', '--', '/bin/echo', '$(id)'),
  ]);
  expect(shown).toEqual({ code: 0, stdout: '', stderr: 'simulated: nothing ran\n' });
  expect(found).toEqual(shown);
  const result = JSON.parse(described.stdout);
  expect(result).toMatchObject({ exitCode: 0, stdout: '', stderr: '', simulated: true });
  const { items } = await fleet.node.journal(result.run);
  const intent = items.find(({ body }) => body.type === 'step-intent' && body.class === 'once');
  expect(intent?.body).toMatchObject({ args: { command: ['/bin/echo', '$(id)'] } });
  expect(await fleet.node.run(result.run)).toMatchObject({ mode: 'task', state: 'succeeded' });
  expect(await held()).toEqual(before);
});

test('a command that cannot be run says why', async () => {
  const [noContainer, noDeployment, tooLong, noCommand] = await Promise.all([
    fleet.hypha('exec', 'web/none', '--', '/bin/true'),
    fleet.hypha('exec', 'none/web', '--', '/bin/true'),
    fleet.hypha('exec', 'web/web', '--within', '2h', '--', '/bin/true'),
    fleet.hypha('exec', 'web/web'),
  ]);
  expect(noContainer).toMatchObject({ code: 1, stdout: expect.stringContaining('E_NOT_FOUND') });
  expect(noDeployment).toMatchObject({ code: 4, stderr: expect.stringContaining('E_NOT_FOUND') });
  expect(tooLong).toMatchObject({ code: 2, stderr: expect.stringContaining('E_ARGUMENT') });
  expect(noCommand).toMatchObject({ code: 2 });
});
