import {
  ContainerSpec,
  ExecArgs,
  ExecResult,
  HealthSpec,
  SnapshotResult,
  VolumeResult,
  VolumeSpec,
} from '@hypha/sal';
import type * as hypha from '@hypha/script';
import { expect, test } from 'vitest';

// `Required` makes each literal below name every field of the type, so that comparing its keys with those
// of the schema compares the type with the schema.
const REF = { $rid: 'a'.repeat(26), kind: 'volume', name: 'data' };

const VOLUME: Omit<Required<hypha.VolumeSpec>, 'cloneOf'> = {
  size: '1.5GiB',
  snapshotBefore: true,
};
const HEALTH: Required<hypha.Health> = {
  http: { port: 80, path: '/ok' },
  tcp: { port: 80 },
  exec: ['true'],
  within: '1.5s',
};
const CONTAINER: Omit<Required<hypha.ContainerSpec>, 'mounts'> = {
  image: 'oci:/srv/images/web:1',
  command: ['/bin/web', '-p', '80'],
  env: { WWW: '/www' },
  workdir: '/www',
  user: '1000:1000',
  memory: 64 * 1024 * 1024,
  cpus: 0.25,
  pids: 32,
  files: { '/etc/web.conf': 'port 80\n' },
  readonly: true,
  health: HEALTH,
  restart: 'on-failure',
};
const EXEC: Required<hypha.ExecOptions> = { timeout: '1m', idempotent: true };
const EXECUTED: hypha.ExecResult = { exitCode: 0, stdout: '', stderr: '', simulated: true };
const SNAPSHOT: hypha.Snapshot = { name: 'before', simulated: true };
const HANDLE: Omit<hypha.Volume, 'snapshot' | 'clone'> = {
  kind: 'volume',
  name: 'data',
  sizeBytes: 1,
  simulated: true,
};

test.for([
  ['VolumeSpec', { ...VOLUME, cloneOf: REF }, VolumeSpec],
  ['ContainerSpec', { ...CONTAINER, mounts: { '/data': REF } }, ContainerSpec],
  ['Health', HEALTH, HealthSpec],
  ['ExecOptions', { ...EXEC, container: REF, command: ['true'] }, ExecArgs],
  ['ExecResult', EXECUTED, ExecResult],
  ['Snapshot', { ...SNAPSHOT, volume: REF.$rid }, SnapshotResult],
  ['Volume', { ...HANDLE, $rid: REF.$rid }, VolumeResult],
] as const)(
  '%s of a script names exactly what the SALs know, and they accept it',
  ([, value, schema]) => {
    expect(Object.keys(value).sort()).toEqual(Object.keys(schema.shape).sort());
    expect(() => schema.parse(value)).not.toThrow();
  },
);
