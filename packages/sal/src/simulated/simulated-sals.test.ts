import { glob, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Json } from '@hypha/protocol';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { containerAddress } from '../address.ts';
import {
  applyWhole,
  type ContractCall,
  type ContractWorld,
  contractRef,
  contractRid,
  describeOnceContract,
  describeReadContract,
  describeResourceContract,
  describeStepContract,
  getVerb,
  recordOf,
} from '../contract/index.ts';
import type { Effects } from '../effects.ts';
import type { Sal } from '../sal.ts';
import { openSimulatedSals } from './simulated-sals.ts';

const node = `node_${'a'.repeat(32)}`;
const digest = `sha256:${'a'.repeat(64)}`;
let layout: string;

beforeAll(async () => {
  layout = await mkdtemp(join(tmpdir(), 'hypha-layout-'));
  const annotations = { 'org.opencontainers.image.ref.name': 'v1' };
  await writeFile(
    join(layout, 'index.json'),
    JSON.stringify({ manifests: [{ digest, annotations }] }),
  );
});

afterAll(() => rm(layout, { recursive: true }));

function handleOf(kind: string, name: string): ContractCall {
  return { verb: `${kind}.get`, name, args: {} };
}

interface SimulatedWorld extends ContractWorld {
  readonly folder: string;
}

async function createWorld(kind: 'volume' | 'container'): Promise<SimulatedWorld> {
  const folder = await mkdtemp(join(tmpdir(), 'hypha-simulated-'));
  const open = async (effects: Effects): Promise<Sal> => {
    const sals = openSimulatedSals({ folder, node, effects });
    if (kind === 'volume') return sals.volume;
    // So that `given` of a container can declare the volume it mounts.
    return { ...sals.container, verbs: [...sals.container.verbs, ...sals.volume.verbs] };
  };
  return { folder, open, capture: () => capture(folder), close: () => rm(folder, removal) };
}

const removal = { recursive: true } as const;

async function capture(folder: string): Promise<Json> {
  const records: Record<string, Json> = {};
  for await (const path of glob('**/*.json', { cwd: folder })) {
    const { lastOp, ...record } = JSON.parse(await readFile(join(folder, path), 'utf8'));
    records[path] = record;
  }
  return records;
}

const data: ContractCall = { verb: 'volume.ensure', name: 'data', args: { size: '1GiB' } };
const other: ContractCall = { ...data, name: 'other' };
const larger: ContractCall = { ...data, args: { size: '2GiB' } };
const before: ContractCall = {
  verb: 'volume.snapshot',
  name: 'data',
  args: { volume: contractRef('volume', 'data'), name: 'before' },
};

describeStepContract({
  adapter: 'simulated volumes',
  createWorld: () => createWorld('volume'),
  cases: [
    { ...data, title: 'creates one', action: 'create', beside: other, next: larger },
    {
      ...data,
      args: { size: '1GiB', cloneOf: contractRef('volume', 'source') },
      title: 'clones one',
      given: [{ ...data, name: 'source' }],
      action: 'create',
    },
    { ...data, title: 'leaves one as it is', given: [data], action: 'no-op' },
    {
      ...larger,
      title: 'grows one',
      given: [data],
      action: 'update',
      differs: ['size'],
      beside: other,
      next: { ...data, args: { size: '3GiB' } },
    },
    { ...data, args: { size: '1MiB' }, title: 'shrinks one', given: [data], action: 'update' },
    {
      ...data,
      args: { size: '2GiB', snapshotBefore: true },
      title: 'keeps the content of the one it grows',
      given: [data],
      action: 'update',
    },
    {
      ...before,
      title: 'takes one',
      given: [data],
      action: 'create',
      beside: other,
      next: larger,
    },
    { ...before, title: 'leaves one as it is', given: [data, before], action: 'no-op' },
  ],
});

describeReadContract({
  adapter: 'simulated volumes',
  createWorld: () => createWorld('volume'),
  cases: [
    {
      ...handleOf('volume', 'data'),
      title: 'finds one',
      given: [data],
      codeWithout: 'E_NOT_FOUND',
    },
    {
      ...handleOf('volume', 'data'),
      title: 'finds one that shrinks with the commit',
      given: [larger, data],
      codeWithout: 'E_NOT_FOUND',
    },
  ],
});

describeResourceContract({
  adapter: 'simulated volumes',
  createWorld: () => createWorld('volume'),
  cases: [
    {
      title: 'volume',
      declared: data,
      holdsData: true,
      lose: (world, record) => rm(join(world.folder, 'volume', `${record.rid}.json`)),
    },
  ],
});

const web = (spec: Record<string, Json> = {}): ContractCall => ({
  verb: 'container.ensure',
  name: 'web',
  args: { image: `registry.example/web@${digest}`, ...spec },
});

const mounts = { '/data': contractRef('volume', 'data') };

function secret(letter: string): Json {
  return { secret: 'token', version: letter.repeat(32) };
}

describeStepContract({
  adapter: 'simulated containers',
  createWorld: () => createWorld('container'),
  cases: [
    {
      ...web(),
      title: 'creates one',
      action: 'create',
      beside: { ...web(), name: 'other' },
      next: web({ cpus: 2 }),
    },
    {
      ...web({ mounts }),
      title: 'creates one with a mount',
      given: [data],
      action: 'create',
    },
    { ...web(), title: 'leaves one as it is', given: [web()], action: 'no-op' },
    {
      ...web({ memory: '1GiB', restart: 'never' }),
      title: 'gives one more',
      given: [web()],
      action: 'update',
      differs: ['memory', 'restart'],
      beside: { ...web(), name: 'other' },
      next: web({ env: { A: 'b' } }),
    },
    {
      ...web({ memory: '8MiB' }),
      title: 'gives one less',
      given: [web()],
      action: 'update',
      differs: ['memory'],
    },
    {
      ...web({ memory: '1GiB', env: { A: 'b', C: 'd' }, files: { '/x': 'y' }, mounts }),
      title: 'replaces one',
      given: [data, web({ env: { A: 'a', C: 'd' } })],
      action: 'replace',
      differs: ['env.A', 'files./x', 'memory', 'mounts./data'],
      next: web({ memory: '2GiB', env: { A: 'b', C: 'd' }, files: { '/x': 'y' }, mounts }),
    },
    {
      ...web({ env: { TOKEN: secret('b') }, files: { '/token': secret('b') } }),
      title: 'replaces one for a new value of a secret',
      given: [web({ env: { TOKEN: secret('a') }, files: { '/token': secret('a') } })],
      action: 'replace',
      differs: ['env.TOKEN', 'files./token'],
    },
  ],
});

describeReadContract({
  adapter: 'simulated containers',
  createWorld: () => createWorld('container'),
  cases: [
    {
      ...handleOf('container', 'web'),
      title: 'finds one',
      given: [web()],
      codeWithout: 'E_NOT_FOUND',
    },
  ],
});

describeOnceContract({
  adapter: 'simulated containers',
  createWorld: () => createWorld('container'),
  cases: [
    {
      verb: 'container.exec',
      name: 'web',
      args: { container: contractRef('container', 'web'), command: ['true'] },
      title: 'runs nothing',
      given: [web()],
    },
  ],
});

describeResourceContract({
  adapter: 'simulated containers',
  createWorld: () => createWorld('container'),
  cases: [
    {
      title: 'container',
      declared: web(),
      holdsData: false,
      lose: (world, record) => rm(join(world.folder, 'container', `${record.rid}.json`)),
    },
  ],
});

async function withSals(
  act: (sals: { volume: Sal; container: Sal; folder: string }) => Promise<void>,
): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'hypha-simulated-'));
  try {
    await act({ ...openSimulatedSals({ folder, node }), folder });
  } finally {
    await rm(folder, removal);
  }
}

test('says in results, status and observation that nothing is real', () =>
  withSals(async ({ volume, container }) => {
    expect(volume.status.state).toBe('simulated');
    expect(await applyWhole(volume, data)).toMatchObject({ simulated: true });
    const rid = contractRid('container', 'web');
    expect(await applyWhole(container, web())).toEqual({
      $rid: rid,
      kind: 'container',
      name: 'web',
      address: containerAddress(node, rid),
      simulated: true,
    });
    const exec = {
      verb: 'container.exec',
      name: 'web',
      args: { container: contractRef('container', 'web'), command: ['true'] },
    };
    expect(await applyWhole(container, exec)).toMatchObject({ exitCode: 0, simulated: true });
  }));

test('takes an image that a layout has and refuses one that it has not', () =>
  withSals(async ({ container }) => {
    await applyWhole(container, web({ image: `oci:${layout}:v1` }));
    for (const image of [`oci:${layout}:v2`, 'oci:/no/such/layout:v1', 'docker.io/x/web:latest']) {
      await expect(
        (async () => applyWhole(container, web({ image })))(),
        image,
      ).rejects.toMatchObject({ code: 'E_IMAGE' });
    }
  }));

test('refuses to mount a volume that is not there', () =>
  withSals(async ({ container }) => {
    const call = web({ mounts: { '/data': contractRef('volume', 'absent') } });
    await expect(applyWhole(container, call)).rejects.toMatchObject({ code: 'E_REFERENCE' });
  }));

test('refuses a clone of a volume that is not there and a clone into one that is', () =>
  withSals(async ({ volume }) => {
    const clone = (source: string): ContractCall => ({
      ...data,
      args: { size: 1, cloneOf: contractRef('volume', source) },
    });
    await expect(applyWhole(volume, clone('absent'))).rejects.toMatchObject({
      code: 'E_REFERENCE',
    });
    await applyWhole(volume, data);
    await applyWhole(volume, { ...data, name: 'source' });
    await expect(applyWhole(volume, clone('source'))).rejects.toMatchObject({ code: 'E_CONFLICT' });
  }));

test('names the wrong field of an argument', () =>
  withSals(async ({ volume }) => {
    const verb = getVerb(volume, 'volume.ensure');
    expect(() => verb.parse({ size: 'big' })).toThrow(
      expect.objectContaining({ code: 'E_ARGUMENT', where: { path: 'size' } }),
    );
    expect(() => verb.parse({ size: 1, owner: 'me' })).toThrow(
      expect.objectContaining({ code: 'E_ARGUMENT' }),
    );
  }));

test('keeps no environment and no file content in its records', () =>
  withSals(async ({ container, folder }) => {
    await applyWhole(container, web({ env: { TOKEN: 'hush-1' }, files: { '/token': 'hush-2' } }));
    for await (const path of glob('**/*.json', { cwd: folder })) {
      expect(await readFile(join(folder, path), 'utf8')).not.toContain('hush');
    }
  }));

test('a record that something else wrote is refused by its path', () =>
  withSals(async ({ volume, folder }) => {
    await mkdir(join(folder, 'volume'));
    const file = join(folder, 'volume', `${contractRid('volume', 'data')}.json`);
    await writeFile(file, '{"half":');
    const error = await applyWhole(volume, data).then(
      () => undefined,
      (cause: unknown) => cause,
    );
    expect(error).toMatchObject({ code: 'E_SAL', message: `cannot read record ${file}` });
  }));

test('records survive: another process sees what one declared', () =>
  withSals(async ({ volume, folder }) => {
    await applyWhole(volume, data);
    const other = openSimulatedSals({ folder, node }).volume;
    expect(await other.resource.list(AbortSignal.timeout(1000))).toEqual([
      { rid: contractRid('volume', 'data'), label: 'default/contract/volume/data' },
    ]);
  }));

test('holds the larger limit of a container until its run commits', () =>
  withSals(async ({ container }) => {
    await applyWhole(container, web({ memory: '1GiB' }));
    const less = web({ memory: '8MiB', cpus: 2 });
    await applyWhole(container, less, { run: 'b' });
    const record = recordOf(container, less);
    const look = () => container.resource.observe(record, AbortSignal.timeout(1000));
    expect(await look()).toMatchObject({ state: 'running', converged: false });
    await container.resource.converge(record, AbortSignal.timeout(1000));
    expect(await look()).toMatchObject({ state: 'running', converged: true });
  }));

test('bounds each step by what its arguments ask for', () =>
  withSals(async ({ volume, container }) => {
    const deadlineMs = (sal: Sal, verb: string, args: Json) => {
      const found = getVerb(sal, verb);
      return found.deadlineMs?.(found.parse(args)) ?? 0;
    };
    const { args } = web();
    const { args: waiting } = web({ health: { tcp: { port: 80 }, within: '10m' } });
    const plainMs = deadlineMs(container, 'container.ensure', args);
    expect(deadlineMs(container, 'container.ensure', waiting)).toBe(plainMs + 600_000);
    const exec = { container: contractRef('container', 'web'), command: ['true'], timeout: '1h' };
    expect(deadlineMs(container, 'container.exec', exec)).toBeGreaterThan(3_600_000);
    expect(deadlineMs(volume, 'volume.ensure', { size: 1 })).toBeGreaterThan(0);
  }));
