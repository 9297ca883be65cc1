import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { makeFolder } from './make-folder.ts';
import { runCli } from './testing/cli-process.ts';

test('folders are made for their owner alone, and again does no harm', () => {
  const root = mkdtempSync(join(tmpdir(), 'hypha-folder-'));
  try {
    makeFolder(join(root, 'a', 'b'));
    makeFolder(join(root, 'a', 'b'));
    expect(
      [join(root, 'a'), join(root, 'a', 'b')].map((path) => statSync(path).mode & 0o777),
    ).toEqual([0o700, 0o700]);
    writeFileSync(join(root, 'file'), '');
    expect(() => makeFolder(join(root, 'file', 'c'))).toThrow(/ENOTDIR/);
  } finally {
    rmSync(root, { recursive: true });
  }
});

test('a state folder that cannot be made is refused at once', { timeout: 60_000 }, async () => {
  const root = mkdtempSync(join(tmpdir(), 'hypha-folder-'));
  try {
    const outcome = await runCli(root, 'up', '--state', '/proc/nope/deeper');
    expect(outcome).toMatchObject({ code: 4, stdout: '' });
    expect(outcome.stderr).toContain('E_NOT_FOUND: cannot use /proc/nope');
  } finally {
    rmSync(root, { recursive: true });
  }
});
