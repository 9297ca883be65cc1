import { HyphaError } from '@hypha/protocol';
import type { Command, Effects, SubvolumePool } from '@hypha/sal';
import { expect, test } from 'vitest';
import { hasSimpleQuota, openSimpleQuota } from './quota.ts';

const signal = AbortSignal.timeout(10_000);

test.for([
  ['6.2', '6.18.44', false],
  ['6.7', '6.1.0-13-amd64', false],
  ['6.7', '6.7.0', true],
  ['6.14', '6.12.41+deb13-amd64', true],
  ['7.0', '7.1.0', true],
  ['of unknown version', '6.18.0', false],
] as const)('progs %s on kernel %s: simple quotas %s', ([progs, kernel, has]) => {
  expect(hasSimpleQuota(progs, kernel)).toBe(has);
});

function quotaWith(run: (command: Command) => void, enable: boolean) {
  const effects: Effects = {
    run: async (command) => {
      run(command);
      return { exitCode: 0, stdout: '', stderr: '' };
    },
    change: (change) => change(),
  };
  // Of the pool, a quota only asks where things are.
  const pool = { root: '/pool', resolve: (path: string) => `/pool/${path}` } as SubvolumePool;
  return openSimpleQuota({ pool, btrfs: '/btrfs', effects, enable, signal });
}

test('only the owner turns quotas on, and limits are set on the subvolume', async () => {
  const commands: (readonly string[])[] = [];
  const record = (command: Command) => commands.push(command.argv);
  await quotaWith(record, true);
  const quota = await quotaWith(record, false);
  await quota.setLimit('volumes/a', 4096, signal);
  expect(commands).toEqual([
    ['quota', 'enable', '--simple', '/pool'],
    ['qgroup', 'limit', '4096', '/pool/volumes/a'],
  ]);
});

test('a quota that is reached is full storage', async () => {
  const quota = await quotaWith((command) => {
    const details = { argv: command.argv, stderr: 'ERROR: Disk quota exceeded', exitCode: 1 };
    throw new HyphaError('E_SAL', 'failed', { details });
  }, false);
  await expect(quota.setLimit('volumes/a', 1, signal)).rejects.toMatchObject({
    code: 'E_STORAGE',
  });
});
