import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { findPortBase, openTempDir } from '@hypha/testkit';
import { expect, test } from 'vitest';
import { root } from './fixtures/fleet.ts';
import { commandOf, processTree } from './fixtures/process-tree.ts';

test('up stops all it started also when nobody reads what it says any more', async () => {
  await using folder = await openTempDir();
  const flags = ['--nodes', '0', '--port-base', String(await findPortBase(4)), '-o', 'json'];
  const up = spawn(join(root, 'bin/hypha'), ['up', '--state', folder.path, ...flags], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  await once(createInterface({ input: up.stdout }), 'line');
  const started = processTree(up.pid ?? 0).filter((pid) => pid !== up.pid);
  expect(started.length).toBeGreaterThanOrEqual(3);
  up.stderr.destroy();
  up.stdout.destroy();
  const ended = once(up, 'exit');
  up.kill('SIGTERM');
  expect(await ended).toEqual([0, null]);
  expect(started.map(commandOf).filter((command) => command !== '')).toEqual([]);
});
