import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type CliOutcome, runCli } from '../testing/cli-process.ts';

const IMAGE = `docker.io/library/busybox@sha256:${'0'.repeat(64)}`;
const SCRIPT = `import { container, log, sleep, volume } from 'hypha';
import { fail } from './lib/fail.ts';
export const deployment = {
  name: 'web',
  input: { size: { type: 'string', default: '64MiB' }, twoOf: { type: 'bool', default: true }, boom: { type: 'bool', default: false } },
} as const;
export default async function deploy(input: { size: string; twoOf: boolean; boom: boolean }) {
  const data = await volume('data', { size: input.size });
  if (input.twoOf) await volume('spare', { size: '1MiB' });
  const web = await container('web', { image: '${IMAGE}', mounts: { '/data': data } });
  await sleep('2d');
  log('made', { address: web.address });
  if (input.boom) fail(input.size);
  return { address: web.address };
}
`;
const DEADLINE_MS = 60_000;

const FAIL = `interface Reason { readonly text: string }

export function fail(text: Reason['text']): never {
  throw new Error(\`no more of \${text}\`);
}
`;

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'hypha-simulate-test-'));
  mkdirSync(join(folder, 'lib'));
  writeFileSync(join(folder, 'web.ts'), SCRIPT);
  writeFileSync(join(folder, 'lib', 'fail.ts'), FAIL);
});
afterAll(() => rmSync(folder, { recursive: true }));

function simulate(...args: readonly string[]): Promise<CliOutcome> {
  return runCli(folder, 'simulate', 'web.ts', '--deadline', '7d', ...args);
}

function actionsOf(stdout: string): string[] {
  const { steps } = JSON.parse(stdout) as { steps: { verb: string; action: string }[] };
  return steps.map(({ verb, action }) => `${verb} ${action}`);
}

test(
  'the second of a pair of runs in one state folder is an update, and says what went and what stayed',
  async () => {
    const state = ['--state', join(folder, 'state')];
    const first = await simulate(...state, '-o', 'json');
    expect(first.code).toBe(0);
    expect(JSON.parse(first.stdout)).toMatchObject({
      ...{ simulated: true, state: 'succeeded', generation: 1, tookMs: 2 * 86_400_000 },
      output: { address: expect.stringMatching(/^fd/) },
      logs: [{ message: 'made' }],
    });
    expect(actionsOf(first.stdout)).toEqual([
      ...['volume.ensure create', 'volume.ensure create', 'container.ensure create', 'sleep run'],
    ]);
    const second = await simulate(...state, '-i', 'size=128MiB', '-i', 'twoOf=false', '-o', 'json');
    expect(JSON.parse(second.stdout)).toMatchObject({
      ...{ state: 'succeeded', generation: 2 },
      retained: [{ kind: 'volume', name: 'spare' }],
    });
    expect(actionsOf(second.stdout)).toEqual([
      ...['volume.ensure update', 'container.ensure no-op', 'sleep run'],
    ]);
  },
  DEADLINE_MS,
);

test(
  'an error is shown at its place in the file that was imported, and the run is undone',
  async () => {
    const { code, stdout } = await simulate('-i', 'boom=true');
    expect(code).toBe(1);
    expect(stdout).toContain('E_SCRIPT: no more of 64MiB\n  at lib/fail.ts:4:13');
    expect(stdout).toMatch(/failed \(simulated\), 3 steps undone/);
  },
  DEADLINE_MS,
);

test(
  'a step that is made to fail shows the undo, at the place of the call',
  async () => {
    const { code, stdout } = await simulate('--fail', 'web=E_HEALTH', '-o', 'json');
    expect(code).toBe(1);
    expect(JSON.parse(stdout)).toMatchObject({
      ...{ state: 'failed', undone: 3, output: null },
      problem: { code: 'E_HEALTH', where: { file: 'web.ts', line: 10, column: 21, step: 3 } },
      steps: [{ state: 'undone' }, { state: 'undone' }, { state: 'undone' }],
    });
  },
  DEADLINE_MS,
);

test(
  'a crash at every point ends as the run without one, and the number of points is told',
  async () => {
    const state = ['--state', join(folder, 'crash-state')];
    await simulate(...state);
    const { code, stdout } = await simulate(
      ...[...state, '-i', 'size=96MiB', '--crash-every-step', '-o', 'json'],
    );
    expect(code).toBe(0);
    const { crashes } = JSON.parse(stdout) as { crashes: { points: number; tried: number } };
    expect(crashes).toMatchObject({ differences: [], tried: crashes.points });
    expect(crashes.points).toBeGreaterThan(10);
  },
  2 * DEADLINE_MS,
);

test(
  'a crash that cannot be told apart from a call that happened is found',
  async () => {
    const script = `import { container } from 'hypha';
export const deployment = { name: 'once' };
export default async () => {
  const web = await container('web', { image: '${IMAGE}' });
  await web.exec(['/bin/true']);
};
`;
    writeFileSync(join(folder, 'once.ts'), script);
    const { code, stdout } = await runCli(folder, 'simulate', 'once.ts', '--crash-every-step');
    expect(code).toBe(1);
    expect(stdout).toMatch(/crash DIFFERS .*E_UNKNOWN_OUTCOME/);
  },
  DEADLINE_MS,
);

test.for([
  [['--fail', '9=E_SAL'], 'E_ARGUMENT: --fail 9: the run came by no such step'],
  [['--fail', 'web'], 'E_ARGUMENT: --fail: expected STEP=CODE'],
  [['--fail', 'web=E_NOPE'], 'E_ARGUMENT: --fail: there is no code E_NOPE'],
  [['--deadline', '8d'], 'E_ARGUMENT: --deadline: at most 7d'],
  [['--cpus', 'many'], 'E_ARGUMENT: --cpus: expected a number'],
  [['-i', 'nope=1'], 'E_ARGUMENT: input nope is unknown'],
  [['--label', 'nope'], 'E_ARGUMENT: --label: expected KEY=VALUE'],
] as const)('%j ends with 2 and says why', { timeout: DEADLINE_MS }, async ([args, says]) => {
  const { code, stderr } = await simulate(...args);
  expect(code).toBe(2);
  expect(stderr).toContain(says);
});

test('the state folder of a fleet is refused and stays as it is', {
  timeout: DEADLINE_MS,
}, async () => {
  const state = join(folder, 'fleet');
  mkdirSync(state);
  writeFileSync(join(state, 'context.json'), '{}');
  const { code, stderr } = await simulate('--state', state);
  expect(code).toBe(3);
  expect(stderr).toContain('is the state folder of a fleet');
  expect(readdirSync(state)).toEqual(['context.json']);
});
