import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** Exit code and output of one of the workspace's own tools. */
async function run(tool: string, args: readonly string[]): Promise<string> {
  try {
    await promisify(execFile)(`${root}/node_modules/.bin/${tool}`, args, { cwd: root });
    return '';
  } catch (error) {
    const { stdout, stderr } = error as { stdout: string; stderr: string };
    return `${stdout}\n${stderr}`;
  }
}

test('the workspace type-checks', async () => {
  expect(await run('tsc', ['--noEmit'])).toBe('');
});

test('the examples type-check against the published script types', async () => {
  expect(await run('tsc', ['--noEmit', '-p', 'examples'])).toBe('');
});

test('format and lint find nothing', async () => {
  expect(await run('biome', ['check', '--diagnostic-level=error', '.'])).toBe('');
});
