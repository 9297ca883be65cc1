import { isHyphaError, type Json } from '@hypha/protocol';
import { ContainerSpec, type ResourceLabel, specHashOf } from '@hypha/sal';
import { expect, test } from 'vitest';
import type { ImageRecord } from './image-store.ts';
import { buildRuntimeConfig, type RuntimeConfigInput } from './runtime-config.ts';

const label: ResourceLabel = {
  v: 1,
  rid: 'a'.repeat(26),
  kind: 'container',
  realm: 'default',
  deployment: 'web',
  name: 'web-1',
  createdBy: 'run_x/1',
  lastOp: 'run_x/1',
  specHash: specHashOf({}),
};
const image: ImageRecord = {
  v: 1,
  sha256: '0'.repeat(64),
  entrypoint: ['/bin/entry'],
  command: ['--default'],
  env: ['PATH=/image/bin', 'A=image', 'B=image', 'EMPTY=', 'malformed'],
  user: { uid: 0, gid: 0, additionalGids: [] },
  workdir: '/srv',
  stopSignal: '',
};

interface Config {
  readonly process: {
    readonly args: readonly string[];
    readonly env: readonly string[];
    readonly cwd: string;
    readonly user: Json;
    readonly capabilities: {
      readonly bounding: readonly string[];
      readonly effective: readonly string[];
      readonly ambient?: readonly string[];
      readonly inheritable?: readonly string[];
    };
  };
  readonly mounts: readonly { destination: string; options: readonly string[]; source: string }[];
  readonly root: Json;
  readonly annotations: Json;
  readonly linux: {
    readonly namespaces: readonly { type: string; path?: string }[];
    readonly resources: Json;
    readonly seccomp?: Json;
  };
}

function build(declared: Json = {}, more: Partial<RuntimeConfigInput> = {}): Config {
  const spec = ContainerSpec.parse({ image: 'oci:/x:y', ...(declared as object) });
  const config = buildRuntimeConfig({
    label,
    spec,
    env: Object.fromEntries(
      Object.entries(spec.env).flatMap(([name, value]) =>
        typeof value === 'string' ? [[name, value]] : [],
      ),
    ),
    image,
    rootfs: '/pool/rootfs',
    namespacePath: '/run/netns/hy-1',
    cgroupPath: '/hypha-1/x',
    files: [],
    volumes: [],
    seccomp: null,
    limitsSwap: true,
    ...more,
  });
  return config as unknown as Config;
}

test('runs what the image says, or what the spec says instead', () => {
  expect(build().process).toMatchObject({ args: ['/bin/entry', '--default'], cwd: '/srv' });
  const own = build({ command: ['/bin/own', 'x'], workdir: '/own' });
  expect(own.process).toMatchObject({ args: ['/bin/own', 'x'], cwd: '/own' });
});

test('needs something to run', () => {
  const empty = { ...image, entrypoint: [], command: [] };
  try {
    build({}, { image: empty });
  } catch (error) {
    expect(isHyphaError(error, 'E_ARGUMENT') && error.where?.path).toBe('command');
    return;
  }
  expect.unreachable('accepted');
});

test('variables of the spec go before those of the image, and those before the defaults', () => {
  const { env } = build({ env: { A: 'spec=1', C: 'spec' } }).process;
  expect(env.toSorted()).toEqual([
    'A=spec=1',
    'B=image',
    'C=spec',
    'EMPTY=',
    'HOSTNAME=web-1',
    'PATH=/image/bin',
  ]);
});

test('root keeps a bounded set of capabilities, everybody else none', () => {
  const root = build().process.capabilities;
  expect(root.effective).toEqual(root.bounding);
  for (const taken of ['CAP_SYS_ADMIN', 'CAP_NET_ADMIN', 'CAP_NET_RAW', 'CAP_MKNOD']) {
    expect(root.bounding).not.toContain(taken);
  }
  expect(root.ambient).toBeUndefined();
  expect(root.inheritable).toBeUndefined();
  const other = build({ user: '7:8' }).process;
  expect(other.user).toEqual({ uid: 7, gid: 8, additionalGids: [], umask: 0o022 });
  expect(other.capabilities.effective).toEqual([]);
});

test('has namespaces of its own, and joins the network that was made for it', () => {
  const { namespaces } = build().linux;
  expect(namespaces.map(({ type }) => type).toSorted()).toEqual(
    ['ipc', 'mount', 'network', 'pid', 'uts'].toSorted(),
  );
  expect(namespaces.find(({ type }) => type === 'network')?.path).toBe('/run/netns/hy-1');
});

test.each([
  [0.01, 1000, 10],
  [0.5, 50_000, 512],
  [1, 100_000, 1024],
  [2.25, 225_000, 2304],
])('%d cores are a quota of %d µs and %d shares', (cpus, quota, shares) => {
  expect(build({ cpus }).linux.resources).toMatchObject({
    cpu: { quota, shares, period: 100_000 },
  });
});

test('memory is memory without swap, where the kernel can tell', () => {
  const memory = '16MiB';
  expect(build({ memory }).linux.resources).toMatchObject({
    memory: { limit: 2 ** 24, swap: 2 ** 24 },
    devices: [{ allow: false, access: 'rwm' }],
  });
  const without = build({ memory }, { limitsSwap: false }).linux.resources;
  expect((without as { memory: Json }).memory).toEqual({ limit: 2 ** 24 });
});

test('files are bound read-only over volumes, and neither brings devices or setuid', () => {
  const config = build(
    {},
    {
      volumes: [{ source: '/pool/v', destination: '/data' }],
      files: [{ source: '/run/f', destination: '/data/secret' }],
    },
  );
  const [volume, file] = config.mounts.slice(-2);
  expect(volume).toMatchObject({ source: '/pool/v', destination: '/data' });
  expect(file).toMatchObject({ source: '/run/f', destination: '/data/secret' });
  expect(volume?.options).toEqual(['rbind', 'rw', 'nosuid', 'nodev']);
  expect(file?.options).toEqual(['bind', 'ro', 'nosuid', 'nodev']);
});

test('says whose it is', () => {
  expect(build().annotations).toEqual({
    'hypha.rid': label.rid,
    'hypha.realm': 'default',
    'hypha.deployment': 'web',
    'hypha.name': 'web-1',
    'hypha.createdBy': 'run_x/1',
    'hypha.lastOp': 'run_x/1',
    'hypha.specHash': label.specHash,
  });
});
