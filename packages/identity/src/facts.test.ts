import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { hostname, uptime } from 'node:os';
import { join } from 'node:path';
import { NodeFacts } from '@hypha/protocol';
import { openTempDir } from '@hypha/testkit';
import { describe, expect, test } from 'vitest';
import { readBoot } from './boot.ts';
import { readCgroupLayout, readFacts } from './facts.ts';

describe('facts', () => {
  test('are this machine’s and fit the format', async () => {
    const sals = {
      volume: { state: 'simulated', driver: 'simulated', reason: 'no btrfs' },
    } as const;
    const facts = await readFacts({ storageBytes: 123, sals });
    expect(NodeFacts.parse(facts)).toEqual(facts);
    expect(facts).toMatchObject({
      hostname: hostname(),
      storageBytes: 123,
      sals,
      nodeVersion: process.versions.node,
      arch: process.arch,
    });
    expect(facts.cpus).toBeGreaterThan(0);
    expect(facts.memoryBytes).toBeGreaterThan(64 * 2 ** 20);
  });
});

describe('the cgroup layout', () => {
  test.for([
    ['v2', ['cgroup.controllers', 'cgroup.procs']],
    ['hybrid', ['memory/cgroup.procs', 'unified/cgroup.procs']],
    ['v1', ['memory/cgroup.procs']],
    ['none', []],
  ] as const)('is %s', async ([layout, files]) => {
    await using root = await openTempDir();
    for (const file of files) {
      await mkdir(join(root.path, file, '..'), { recursive: true });
      await writeFile(join(root.path, file), '');
    }
    expect(await readCgroupLayout(root.path)).toBe(layout);
  });
});

describe('a boot', () => {
  test('has the id the kernel gave it, and an uptime that only grows', async () => {
    const named = await readFile('/proc/sys/kernel/random/boot_id', 'utf8').catch(() => undefined);
    const boot = await readBoot(() => Date.now());
    if (named !== undefined) expect(boot.bootId).toBe(named.trim());
    const before = boot.uptimeMs();
    expect(before).toBeGreaterThan(0);
    expect(boot.uptimeMs()).toBeGreaterThanOrEqual(before);
    expect(Number.isInteger(before)).toBe(true);
  });

  test('is the same each time where the kernel gives none, and another after a reboot', async () => {
    // A start at a whole minute: the milliseconds between two readings round to it.
    const nowMs = Math.round(uptime() * 1000) + 29_000_000 * 60_000;
    const read = (ms: number) => readBoot(() => ms, '/nowhere/boot_id');
    const first = await read(nowMs);
    expect((await read(nowMs + 1000)).bootId).toBe(first.bootId);
    expect(first.bootId).toMatch(/^derived-[0-9a-f]{32}$/);
    // Rebooted means: the same uptime at a later time.
    expect((await read(nowMs + 3_600_000)).bootId).not.toBe(first.bootId);
  });
});
