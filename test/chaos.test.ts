import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { root } from './fixtures/fleet.ts';

const RUNS = 8;
const TIMEOUT_MS = 900_000;

test('generated scripts keep every promise while what runs them is killed, stopped and wiped', {
  timeout: TIMEOUT_MS,
}, async () => {
  // Other scripts in each run of the suite; the seed is in the last line, and repeats them.
  const seed = String(Math.floor(performance.timeOrigin) % 1_000_000_000);
  const chaos = promisify(execFile)(
    join(root, 'scripts/chaos'),
    ['--runs', String(RUNS), '--seed', seed],
    { timeout: TIMEOUT_MS, maxBuffer: 16 * 2 ** 20 },
  );
  const { stdout, stderr } = await chaos.catch(
    ({ stdout = '', stderr = '' }: { stdout?: string; stderr?: string }) => ({ stdout, stderr }),
  );
  expect(stdout, stderr).toMatch(
    new RegExp(`\\n${RUNS} runs, \\d+ kills, 0 violations, seed ${seed}\\n$`),
  );
});
