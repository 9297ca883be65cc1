/**
 * The crash checks of the main job, on real processes and, where this machine can, real SALs. After each:
 * the run succeeded, the node holds exactly what was declared, nothing was made twice, and the receipt
 * verifies and arrives at ledger and coordinator.
 */
import { execFile } from 'node:child_process';
import { rmSync } from 'node:fs';
import { basename, join } from 'node:path';
import { promisify } from 'node:util';
import type { JournalEvent } from '@hypha/protocol';
import { waitFor } from '@hypha/testkit';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Fleet, root } from './fixtures/fleet.ts';
import { poolFolders, runnerPids, runtimeContainers } from './fixtures/node-world.ts';
import { commandOf, processTree } from './fixtures/process-tree.ts';
import { lackForRealSals } from './fixtures/real-sals.ts';
import { SignedRuns } from './fixtures/signed-runs.ts';

const run = promisify(execFile);
const lack = lackForRealSals();
const ENDED_MS = 60_000;

let fleet: Fleet;
let runs: SignedRuns;
let image: string;

beforeAll(async () => {
  fleet = await Fleet.start(
    '--storage',
    '2GiB',
    '--sals',
    lack === undefined ? 'real' : 'simulated',
  );
  runs = await SignedRuns.open(fleet);
  const layout = join(fleet.state, 'image');
  if (lack === undefined) await run(join(root, 'scripts/demo-image'), [layout]);
  image = lack === undefined ? `oci:${layout}:web` : `example.invalid/web@sha256:${'0'.repeat(64)}`;
});
afterAll(async () => fleet?.[Symbol.asyncDispose]());

const LIMITS = {
  resources: { milliCpus: 200, memoryBytes: 64 * 2 ** 20, storageBytes: 32 * 2 ** 20 },
};

/** A volume and two containers, with a log line between: four steps' worth of places to be killed at. */
function web(deployment: string, options: { health?: string } = {}) {
  return runs.sign({
    deployment,
    generation: 1,
    caps: ['volume', 'container'],
    limits: LIMITS,
    input: { image },
    source: `import { container, log, volume } from 'hypha';
export default async function deploy({ image }) {
  const data = await volume('data', { size: '16MiB' });
  const spec = { image, command: ['/bin/sleep', '1000'], memory: '16MiB', cpus: 0.05, mounts: { '/data': data } };
  await container('one', spec);
  log('half way');
  await container('two', { ...spec${options.health ?? ''} });
  return 'whole';
}
`,
  });
}

/** Everything the issue asks to hold after a crash. */
async function expectWhole(deployment: string, id: string): Promise<JournalEvent[]> {
  const events = await runs.events(id);
  const last = events.at(-1)?.body;
  expect(last).toMatchObject({ type: 'finished', state: 'succeeded', leftovers: [] });
  const { items } = await fleet.node.listResources({ deployment });
  expect(items.map(({ kind, name }) => `${kind} ${name}`).sort()).toEqual([
    'container one',
    'container two',
    'volume data',
  ]);
  for (const item of items.filter(({ kind }) => kind === 'container')) {
    await waitFor(async () => (await fleet.node.resource(item)).state === 'running', {
      timeoutMs: ENDED_MS,
      what: `${item.name} runs`,
    });
  }
  expect(outcomesPerStep(events)).toEqual([1, 1, 1]);
  if (lack === undefined) await expectMadeOnce(deployment);
  await expectProof(id);
  return events;
}

function outcomesPerStep(events: readonly JournalEvent[]): number[] {
  const counts = new Map<number, number>();
  for (const { body } of events) {
    if (body.type === 'step-result') counts.set(body.step, (counts.get(body.step) ?? 0) + 1);
  }
  return [...counts.values()];
}

/** Counted from outside: what the runtime and the pool hold for these resources. */
async function expectMadeOnce(deployment: string): Promise<void> {
  const { items } = await fleet.node.listResources({ deployment });
  const rids = items.map(({ rid }) => rid);
  const containers = runtimeContainers(fleet.state);
  const volumes = poolFolders(fleet.state, 'volumes').map((path) => basename(path));
  for (const { rid, kind } of items) {
    const made = (kind === 'container' ? containers : volumes).filter((name) =>
      name.startsWith(rid),
    );
    expect({ kind, rid, made: made.length }).toEqual({ kind, rid, made: 1 });
  }
  const rootfs = poolFolders(fleet.state, 'containers').filter((path) =>
    rids.some((rid) => basename(path).startsWith(rid)),
  );
  expect(rootfs).toHaveLength(2);
}

/** The receipt is at the ledger and at the coordinator, and the bundle holds down to genesis. */
async function expectProof(id: string): Promise<void> {
  await waitFor(() => fleet.coordinator.receipt(id), {
    timeoutMs: ENDED_MS,
    what: 'receipt at the coordinator',
  });
  await waitFor(
    async () => (await fleet.ledger.listEntries({ kind: 'receipt', run: id })).items.length === 1,
    { timeoutMs: ENDED_MS, what: 'receipt in the ledger' },
  );
  const file = join(fleet.state, `${id}.json`);
  expect(await fleet.hypha('audit', 'export', id, '--out', file)).toMatchObject({ code: 0 });
  const { code, stdout } = await fleet.hypha('audit', 'verify', file);
  expect({ code, stdout }).toMatchObject({
    code: 0,
    stdout: expect.stringContaining('receipt verified'),
  });
}

async function submitAtNode(envelope: ReturnType<typeof web>): Promise<string> {
  const { runs: accepted } = await fleet.node.submit({ envelope });
  return accepted[0]?.run ?? '';
}

/** Resolves once the run's journal holds such an event. */
function seen(id: string, wanted: (body: JournalEvent['body']) => boolean): Promise<unknown> {
  return waitFor(
    async () =>
      (await fleet.node.journal(id, { limit: 500 })).items.some(({ body }) => wanted(body)),
    { timeoutMs: ENDED_MS, what: 'an event of the run' },
  );
}

test('the coordinator is killed after its 202 and before the node has it', async () => {
  const supervisor = fleet.pid('node-1');
  process.kill(supervisor, 'SIGSTOP');
  const envelope = web('crash-coordinator');
  const { runs: accepted } = await fleet.coordinator.submit({ envelope });
  const id = accepted[0]?.run ?? '';
  process.kill(fleet.pid('coordinator'), 'SIGKILL');
  process.kill(supervisor, 'SIGCONT');
  await waitFor(() => fleet.node.run(id), { timeoutMs: ENDED_MS, what: 'the node has the run' });
  await expectWhole('crash-coordinator', id);
});

test('the supervisor is killed after its 202', async () => {
  const id = await submitAtNode(web('crash-supervisor'));
  process.kill(fleet.pid('node-1'), 'SIGKILL');
  await waitFor(() => fleet.node.run(id), { timeoutMs: ENDED_MS, what: 'the node is back' });
  await expectWhole('crash-supervisor', id);
});

test('a runner is killed in the middle of a step, with a tool it started still alive', async (context) => {
  // Simulated SALs start no tools.
  if (lack !== undefined) context.skip(lack);
  // The probe of the second container takes long enough to be caught in the act.
  const health = ", health: { exec: ['/bin/sleep', '3'], within: '30s' }";
  const id = await submitAtNode(web('crash-runner', { health }));
  const [doomed = 0] = runnerPids(fleet.state);
  const tool = await waitFor(
    () => processTree(doomed).find((pid) => pid !== doomed && isTool(commandOf(pid))),
    { timeoutMs: ENDED_MS, what: 'a tool of the runner' },
  );
  process.kill(doomed, 'SIGKILL');
  await waitFor(() => !commandOf(tool), { timeoutMs: 10_000, what: 'the tool is gone too' });
  const events = await expectWhole('crash-runner', id);
  expect(new Set(events.map(({ epoch }) => epoch)).size).toBeGreaterThan(2);
});

/** Anything a SAL runs; the sandbox host is no tool. */
function isTool(command: string): boolean {
  return /(?:^|\/)(?:runc|conmon|btrfs|umoci|skopeo|ip)\b/.test(command);
}

test('Redis stands still for five seconds in the middle', async () => {
  const redis = fleet.pid('redis');
  process.kill(redis, 'SIGSTOP');
  const id = await submitAtNode(web('redis-stopped'));
  const thawAt = performance.now() + 5000;
  await waitFor(() => performance.now() > thawAt, { timeoutMs: 10_000, what: 'five seconds' });
  process.kill(redis, 'SIGCONT');
  await expectWhole('redis-stopped', id);
});

test('Redis is killed while a run goes on', async () => {
  const id = await submitAtNode(web('redis-killed'));
  await seen(id, ({ type }) => type === 'step-intent');
  process.kill(fleet.pid('redis'), 'SIGKILL');
  await expectWhole('redis-killed', id);
});

test('Redis is wiped with accepted runs waiting', async () => {
  const names = ['wiped-1', 'wiped-2', 'wiped-3', 'wiped-4'];
  const ids = await Promise.all(names.map((name) => submitAtNode(web(name))));
  // Nobody may flush it: its disk is lost instead.
  rmSync(join(fleet.state, 'redis', 'appendonlydir'), { recursive: true });
  process.kill(fleet.pid('redis'), 'SIGKILL');
  for (const [index, id] of ids.entries()) await expectWhole(names[index] ?? '', id);
});

test('ledger and coordinator are both gone while a run goes on', async () => {
  const gone = [fleet.pid('ledger'), fleet.pid('coordinator')];
  for (const pid of gone) process.kill(pid, 'SIGSTOP');
  const envelope = web('alone');
  const id = await submitAtNode(envelope);
  await runs.events(id);
  for (const pid of gone) process.kill(pid, 'SIGCONT');
  await expectWhole('alone', id);
});

test('the whole fleet is killed at once and started again', async () => {
  const id = await submitAtNode(web('all-killed'));
  await seen(id, ({ type }) => type === 'step-intent');
  await fleet.kill();
  await fleet.up();
  await expectWhole('all-killed', id);
});
