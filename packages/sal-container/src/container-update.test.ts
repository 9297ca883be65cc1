import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Json } from '@hypha/protocol';
import { contractContext, contractRef, getVerb } from '@hypha/sal/contract';
import { describe, expect, test, vi } from 'vitest';
import { failureOf } from './testing/failure.ts';
import { nodeOfEachTest } from './testing/node-of-each-test.ts';
import { type Declaration, PAGE, type ScratchNode, signal } from './testing/scratch-node.ts';

const MIB = 2 ** 20;

let node: ScratchNode;
nodeOfEachTest((made) => {
  node = made;
});

/** Memory that the kernel lets the container have. */
async function memoryBytes(): Promise<number> {
  const { cgroups } = (await node.capture()) as { readonly cgroups: readonly string[] };
  const found = /memory\.(?:limit_in_bytes|max)=(\d+)/.exec(cgroups.join('\n'));
  return Number(found?.[1]);
}

/** What must not change where nothing is to: the process itself, its place and what it wrote. */
async function sight(): Promise<Json> {
  const instance = await node.current('web');
  const { store } = await node.containers();
  const run = await store.findRun(instance);
  return {
    instance: instance.id,
    pid: await node.pid('web'),
    startedAtMs: run?.startedAtMs ?? null,
    restarts: run?.restarts ?? null,
    page: await node.fetchPage('web'),
  };
}

describe('a change of limits alone', () => {
  const base = { ...PAGE, memory: '16MiB', restart: 'on-failure' };

  test('keeps process, start and address, and is in force at once', async () => {
    await node.ensure('web', base);
    const before = await sight();
    const step = await node.openStep('web', {
      ...base,
      memory: '64MiB',
      cpus: 1,
      pids: 300,
      restart: 'always',
    });
    expect(step.plan).toMatchObject({
      action: 'update',
      differs: ['cpus', 'memory', 'pids', 'restart'],
    });
    await step.apply();
    expect(await sight()).toEqual(before);
    expect(await memoryBytes()).toBe(64 * MIB);
    await step.undo();
    expect(await sight()).toEqual(before);
    expect(await memoryBytes()).toBe(16 * MIB);
  });

  test('takes memory away only once its run has committed', async () => {
    await node.ensure('web', { ...base, memory: '64MiB' });
    const before = await sight();
    await node.ensure('web', base, 'b');
    expect(await memoryBytes()).toBe(64 * MIB);
    expect(await node.observe('web', base)).toMatchObject({ state: 'running', converged: false });
    await node.converge('web', base);
    expect(await memoryBytes()).toBe(16 * MIB);
    expect(await node.observe('web', base)).toMatchObject({ state: 'running', converged: true });
    expect(await sight()).toEqual(before);
  });

  test('is what a container has that is started again', async () => {
    await node.ensure('web', base);
    const wide = { ...base, memory: '64MiB' };
    await node.ensure('web', wide, 'b');
    const failing = { ...wide, health: { tcp: { port: 81 }, within: '300ms' } };
    const step = await node.openStep('web', failing);
    expect(step.plan).toMatchObject({ action: 'replace', differs: ['health'] });
    expect(await failureOf(step.apply())).toMatchObject({ code: 'E_HEALTH' });
    await step.undo();
    expect(await memoryBytes()).toBe(64 * MIB);
    expect(await node.observe('web', wide)).toMatchObject({ state: 'running', converged: true });
  });

  test('of one that was stopped is undone to one that is stopped', async () => {
    const job = { command: ['/bin/true'], restart: 'never', memory: '16MiB' };
    await node.ensure('job', job);
    const before = await node.capture();
    const step = await node.openStep('job', { ...job, restart: 'always' });
    expect(step.plan).toMatchObject({ action: 'update', differs: ['restart'] });
    await step.apply();
    await step.undo();
    expect(await node.capture()).toEqual(before);
    expect(await node.observe('job', job)).toMatchObject({ state: 'stopped', converged: true });
  });
});

test('memory that is in use by the time of the undo is taken back once it is free', async () => {
  const grows = [
    'while [ ! -e /tmp/go ]; do sleep 0.05; done',
    'dd if=/dev/zero of=/dev/null bs=60M & while [ ! -e /tmp/free ]; do sleep 0.05; done',
    'kill $!; sleep 1000',
  ];
  const small = { command: ['/bin/sh', '-c', grows.join('; ')], memory: '16MiB' };
  const large = { ...small, memory: '128MiB' };
  await node.ensure('web', small);
  const pid = await node.pid('web');
  const step = await node.openStep('web', large);
  expect(step.plan.action).toBe('update');
  await step.apply();
  await node.exec('web', ['/bin/touch', '/tmp/go']);
  await vi.waitFor(
    async () => {
      const { info } = await node.observe('web', large);
      expect(info.memoryBytes).toBeGreaterThan(50 * MIB);
    },
    { timeout: 20_000 },
  );
  await step.undo();
  await step.undo();
  expect(await node.pid('web')).toBe(pid);
  expect(await memoryBytes()).toBe(128 * MIB);
  expect(await node.observe('web', small)).toMatchObject({ state: 'running', converged: false });
  await node.exec('web', ['/bin/touch', '/tmp/free']);
  await vi.waitFor(() => node.converge('web', small), { timeout: 20_000 });
  expect(await memoryBytes()).toBe(16 * MIB);
});

describe('what a run changed that was given up', () => {
  const base = { ...PAGE, memory: '16MiB' };

  test.each([
    ['raised', '64MiB'],
    ['lowered', '12MiB'],
  ])('in place, %s, is set back in place', async (_title, memory) => {
    await node.ensure('web', base);
    const before = await sight();
    await node.exec('web', ['/bin/touch', '/data/kept']);
    const step = await node.openStep('web', { ...base, memory });
    expect(step.plan.action).toBe('update');
    await step.apply();
    await node.converge('web', base);
    expect(await sight()).toEqual(before);
    expect(await memoryBytes()).toBe(16 * MIB);
    expect(await node.observe('web', base)).toMatchObject({ state: 'running', converged: true });
    expect(await node.exec('web', ['/bin/ls', '/data'])).toMatchObject({ stdout: 'kept\n' });
  });

  test('by a replacement is dropped once the recorded one is back', async () => {
    await node.ensure('web', base);
    const first = await node.current('web');
    const step = await node.openStep('web', { ...base, env: { STAGE: 'two' } });
    expect(step.plan.action).toBe('replace');
    await step.apply();
    const { resource } = await node.sal();
    const record = await node.record('web', base);
    const settle = async () => resource.settle?.(record, signal());
    expect(await failureOf(settle())).toMatchObject({ code: 'E_SAL' });
    await resource.converge(record, signal());
    await settle();
    expect(await node.observe('web', base)).toMatchObject({ state: 'running', converged: true });
    const { store } = await node.containers();
    expect((await store.list()).map(({ id }) => id)).toEqual([first.id]);
  });
});

describe('a second generation that fails', () => {
  const first = {
    ...PAGE,
    env: { STAGE: 'one' },
    mounts: { '/mnt': contractRef('volume', 'data') },
  };
  const broken = { tcp: { port: 81 }, within: '300ms' };

  test.each<[string, Declaration]>([
    ['that does not become healthy', { ...first, env: { STAGE: 'two' }, health: broken }],
    ['whose command is not there', { ...first, command: ['/bin/absent'] }],
    ['that ends at once', { ...first, command: ['/bin/false'] }],
  ])('%s leaves the first as it was', async (_title, second) => {
    const folder = await node.volume('data');
    await node.ensure('web', first);
    const { instance } = (await sight()) as { readonly instance: string };
    const writes = 'echo kept > /data/written; echo shared > /mnt/written';
    await node.exec('web', ['/bin/sh', '-c', writes]);
    const step = await node.openStep('web', second);
    expect(step.plan.action).toBe('replace');
    await failureOf(step.apply());
    await step.undo();
    expect(await sight()).toMatchObject({ instance, page: 'hello' });
    expect(await node.observe('web', first)).toMatchObject({
      state: 'running',
      converged: true,
      addresses: [(await node.attachment('web')).address],
    });
    const look = ['/bin/sh', '-c', 'cat /data/written /mnt/written; echo $STAGE'];
    expect(await node.exec('web', look)).toMatchObject({ stdout: 'kept\nshared\none\n' });
    expect(await readFile(join(folder, 'written'), 'utf8')).toBe('shared\n');
    const { store } = await node.containers();
    expect(await store.list()).toHaveLength(1);
  });

  test('before it stops anything leaves the first process itself alone', async () => {
    await node.volume('data');
    await node.ensure('web', first);
    const before = await sight();
    const absent = `registry.invalid/web@sha256:${'0'.repeat(64)}`;
    const step = await node.openStep('web', { ...first, image: absent });
    expect(step.plan).toMatchObject({ action: 'replace', differs: ['image'] });
    expect(await failureOf(step.apply())).toMatchObject({ code: 'E_IMAGE' });
    await step.undo();
    expect(await sight()).toEqual(before);
  });
});

test('what is prepared is there before the step, and a plan needs none of it', async () => {
  const { images } = await node.containers();
  const { sha256 } = await images.resolve(node.image);
  const call = node.call('web', PAGE);
  const verb = getVerb(await node.sal(), call.verb);
  const context = contractContext(verb, call);
  const args = verb.parse(call.args);
  const plan = await verb.plan(context, args);
  expect(plan.action).toBe('create');
  const predicted = await verb.predict?.(context, args, plan);
  expect(await images.has(sha256)).toBe(false);
  await verb.prepare?.(context, args);
  await verb.prepare?.(context, args);
  expect(await images.has(sha256)).toBe(true);
  expect(await verb.apply(context, args, plan.before)).toEqual(predicted);
  // What is there is made of it already.
  await (await node.host()).pool.deleteSubvolume(`images/${sha256}`, signal());
  await verb.prepare?.(context, verb.parse({ ...(call.args as object), memory: '64MiB' }));
  expect(await images.has(sha256)).toBe(false);
});

test('a plan takes an image that is not here, and refuses one that cannot be', async () => {
  const plan = async (image: string) => {
    const call = node.call('web', { image });
    const verb = getVerb(await node.sal(), call.verb);
    return verb.plan(contractContext(verb, call), verb.parse(call.args));
  };
  const digest = `sha256:${'0'.repeat(64)}`;
  expect(await plan(`registry.invalid/web@${digest}`)).toMatchObject({ action: 'create' });
  for (const image of ['registry.invalid/web:latest', 'oci:/no/such/layout:v1']) {
    expect(await failureOf(plan(image)), image).toMatchObject({ code: 'E_IMAGE' });
  }
});
