import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readFile, rm, rmdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import {
  detectCgroups,
  type Fence,
  listFences,
  openFence,
  removeFenceGroup,
} from './fence-cgroup.ts';

const signal = AbortSignal.timeout(60_000);
const { cgroup2, layout } = await detectCgroups();
let folder: string;
let group: string;
const fences: Fence[] = [];

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'hypha-fence-'));
  group = `hypha-test-${folder.slice(-6).toLowerCase()}`;
});

afterEach(async () => {
  for (const fence of fences.splice(0)) {
    await fence.kill();
    await fence.waitEmpty(signal);
    await fence.remove();
  }
  await removeFenceGroup(cgroup2, group);
  await rm(folder, { recursive: true });
});

async function open(driver: Fence['driver'], name = 'runner-1'): Promise<Fence> {
  const fence = await openFence({
    cgroup2: driver === 'cgroup' ? cgroup2 : undefined,
    group,
    name,
  });
  fences.push(fence);
  return fence;
}

/** A shell with a child; the pids are in the answer once both run. */
async function spawnPair(fence: Fence, script: string): Promise<{ child: ChildProcess }> {
  const { tool, argv } = fence.enter('/bin/sh', ['-c', script]);
  const child = spawn(tool, [...argv], { detached: true, stdio: ['ignore', 'pipe', 'inherit'] });
  if (child.pid === undefined || child.stdout === null) throw new Error('not spawned');
  fence.adopt(child.pid);
  await once(child.stdout, 'data');
  return { child };
}

const drivers: readonly Fence['driver'][] =
  cgroup2 === undefined ? ['process-group'] : ['cgroup', 'process-group'];

describe.each(drivers)('a fence by %s', (driver) => {
  test('kills what entered it and what that started, and is empty afterwards', async () => {
    const fence = await open(driver);
    const { child } = await spawnPair(fence, 'sleep 300 & echo $!; wait');
    expect(await fence.isEmpty()).toBe(false);
    const exit = once(child, 'exit');
    await fence.kill();
    await fence.waitEmpty(signal);
    expect(await exit).toEqual([null, 'SIGKILL']);
    expect(await fence.isEmpty()).toBe(true);
  });

  test('is killed and removed twice without harm, also when nothing ever entered', async () => {
    const fence = await open(driver);
    await fence.kill();
    await fence.remove();
    await fence.kill();
    await fence.remove();
    expect(await fence.isEmpty()).toBe(true);
  });

  test('an abort ends the wait', async () => {
    const fence = await open(driver);
    await spawnPair(fence, 'echo up; exec sleep 300');
    const reason = new Error('enough');
    await expect(fence.waitEmpty(AbortSignal.abort(reason))).rejects.toBe(reason);
  });
});

describe('a cgroup', () => {
  beforeEach((context) => {
    if (cgroup2 === undefined) context.skip('needs root and cgroup v2');
  });

  test('holds a child that made its own session', async () => {
    const fence = await open('cgroup');
    const { child } = await spawnPair(fence, 'setsid sleep 300 & echo $!; exit 0');
    if (child.exitCode === null) await once(child, 'exit');
    expect(await fence.isEmpty()).toBe(false);
    await fence.kill();
    await fence.waitEmpty(signal);
  });

  test('left by a predecessor is opened with what is in it', async () => {
    const first = await open('cgroup');
    await spawnPair(first, 'echo up; exec sleep 300');
    expect(await listFences(cgroup2, group)).toEqual(['runner-1']);
    const second = await open('cgroup');
    expect(await second.isEmpty()).toBe(false);
    await second.kill();
    await second.waitEmpty(signal);
  });

  test('that is gone lets nothing start', async () => {
    const fence = await open('cgroup');
    const marker = join(folder, 'started');
    const { tool, argv } = fence.enter('/bin/sh', ['-c', `echo yes > ${marker}`]);
    await fence.remove();
    const child = spawn(tool, [...argv], { stdio: 'ignore' });
    const [exitCode] = await once(child, 'exit');
    expect(exitCode).not.toBe(0);
    await expect(readFile(marker)).rejects.toMatchObject({ code: 'ENOENT' });
  });

  test('that still holds a process is not removed', async () => {
    const fence = await open('cgroup');
    await spawnPair(fence, 'echo up; exec sleep 300');
    await expect(fence.remove()).rejects.toMatchObject({ code: 'E_SAL' });
  });
});

test('a name that is no single path component is refused', async () => {
  for (const name of ['../x', '', 'a/b', '.', '-x']) {
    await expect(openFence({ cgroup2, group, name })).rejects.toMatchObject({ code: 'E_INTERNAL' });
  }
});

test('a folder that is no cgroup file system has no layout of version 2', async () => {
  expect(await detectCgroups(folder)).toEqual({ layout: 'none', cgroup2: undefined });
  expect(await detectCgroups(join(folder, 'absent'))).toEqual({
    layout: 'none',
    cgroup2: undefined,
  });
  expect(['unified', 'hybrid', 'v1', 'none']).toContain(layout);
});

test('a hierarchy is offered to fence with exactly where groups may be made in it', async (context) => {
  if (layout !== 'unified' && layout !== 'hybrid') context.skip('needs cgroup v2');
  const path = join('/sys/fs/cgroup', layout === 'hybrid' ? 'unified' : '', group);
  const mayMake = await mkdir(path).then(
    () => rmdir(path).then(() => true),
    () => false,
  );
  expect(cgroup2 !== undefined).toBe(mayMake);
});
