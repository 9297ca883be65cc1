/**
 * Keys that never touch a network, several of them needed, and one that is revoked while its work runs: with a
 * real fleet, and machines that know nothing but the file they are given.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { isOpensslInstalled, openTempDir, type TempDir, waitFor } from '@hypha/testkit';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { runCli } from '../packages/cli/src/testing/cli-process.ts';
import { Fleet } from './fixtures/fleet.ts';

const TEST_MS_MAX = 120_000;
/** A node is called unreachable after three silent intervals of ten seconds. */
const UNREACHABLE_MS_MAX = 90_000;

const VOLUME = `
import { volume } from 'hypha';
export const deployment = { name: 'data' };
export default async () => {
  await volume('data', { size: '1MiB' });
  return { ok: true };
};
`;
/** Longer than the test: it ends because it is stopped. */
const ENDLESS = `
import { sleep, volume } from 'hypha';
export const deployment = { name: 'endless', secrets: ['token'] };
export default async () => {
  await volume('data', { size: '1MiB' });
  for (let i = 0; i < 500; i++) await sleep('1s');
};
`;

let fleet: Fleet;
/** A machine without a network: no context, no address, only keys and the files that are carried to it. */
let away: TempDir;
beforeAll(async () => {
  away = await openTempDir('away');
  fleet = await Fleet.start('--nodes', '2', '--sals', 'simulated');
  writeFileSync(join(away.path, 'volume.ts'), VOLUME);
  writeFileSync(join(away.path, 'endless.ts'), ENDLESS);
}, TEST_MS_MAX);
afterAll(async () => {
  await fleet?.[Symbol.asyncDispose]();
  await away?.[Symbol.asyncDispose]();
});

const file = (name: string) => join(away.path, name);
const cosign = (...args: string[]) => runCli(away.path, 'cosign', ...args);
const makeKey = (name: string) =>
  runCli(away.path, 'key', 'new', name, '--out', file(`${name}.pem`));

function openssl(...args: string[]): void {
  execFileSync('openssl', args, { cwd: away.path, stdio: 'pipe' });
}

/** What the guide says: the bytes out, a signature of another tool in. */
async function cosignByOpenssl(work: string, key: string): Promise<string> {
  const { stdout } = await cosign(work, '--pae');
  writeFileSync(file('bytes'), stdout);
  openssl('pkey', '-in', `${key}.pem`, '-pubout', '-out', `${key}.pub`);
  openssl('pkeyutl', '-sign', '-rawin', '-inkey', `${key}.pem`, '-in', 'bytes', '-out', 'sig');
  const signature = readFileSync(file('sig')).toString('base64');
  const added = await cosign(work, '--signature', signature, '--public-key', `${key}.pub`);
  return added.stdout;
}

test('three offline roots, two of which must sign, take over from one', {
  timeout: TEST_MS_MAX,
}, async () => {
  for (const name of ['root-a', 'root-b', 'root-c']) await makeKey(name);
  const roots = ['root-a', 'root-b', 'root-c'].map((name) => file(`${name}.pem`));
  const rotate = ['authority', 'rotate-root', ...roots, '--threshold', '2', '--key', 'root'];
  const alone = await fleet.hypha(...rotate);
  expect({ code: alone.code, stderr: alone.stderr }).toEqual({
    code: 3,
    stderr: expect.stringMatching(
      /E_SIG_THRESHOLD.*\n {2}root keys: 1 of 1 \(root\)\n {2}new root keys: 0 of 2; still 2 of: root-a, root-b, root-c/,
    ),
  });

  const update = file('rotate.json');
  await fleet.hypha(...rotate, '--sign-only', '--out', update);
  const first = await cosign(update, '--key', 'root-a.pem');
  expect(first.stdout).toContain('new root keys: 1 of 2 (root-a); still 1 of: root-b, root-c');
  const early = await fleet.hypha('submit', update);
  expect({ code: early.code, stderr: early.stderr }).toEqual({
    code: 3,
    stderr: expect.stringContaining('E_SIG_THRESHOLD'),
  });
  await cosign(update, '--key', 'root-c.pem');
  expect(await fleet.hypha('submit', update)).toMatchObject({ code: 0 });
  const { stdout } = await fleet.hypha('authority', 'show', '-o', 'json');
  expect(JSON.parse(stdout)).toMatchObject({
    threshold: 2,
    roots: [{ name: 'root-a' }, { name: 'root-b' }, { name: 'root-c' }],
  });
});

test('a second operator is granted, and a policy of two signatures is made by roots that stay offline', {
  timeout: TEST_MS_MAX,
}, async () => {
  await makeKey('bob');
  expect(await fleet.hypha('authority', 'grant', file('bob.pem'))).toMatchObject({ code: 0 });
  const update = file('policy.json');
  const change = ['authority', 'set-policy', '--signatures', '2', '--checkpoint-max-age', '20m'];
  expect(await fleet.hypha(...change, '--unsigned', '--out', update)).toMatchObject({ code: 0 });
  const shown = await cosign(update);
  expect(shown).toMatchObject({
    code: 0,
    stdout: expect.stringContaining('root keys: 0 of 2; still 2 of: root-a, root-b, root-c'),
    stderr: expect.stringContaining('policy: 2 signatures; checkpoints at most 1200 s old'),
  });
  expect(await cosign(update, '--key', 'root-b.pem', '--key', 'root-c.pem')).toMatchObject({
    code: 0,
  });
  expect(await fleet.hypha('submit', update)).toMatchObject({ code: 0 });
});

test('work needs the second signature, which openssl makes on a machine without a network', {
  timeout: TEST_MS_MAX,
}, async (context) => {
  if (!isOpensslInstalled()) context.skip('needs openssl');
  const apply = ['apply', file('volume.ts'), '--node', 'node-1'];
  const alone = await fleet.hypha(...apply);
  expect({ code: alone.code, stderr: alone.stderr }).toEqual({
    code: 3,
    stderr: expect.stringMatching(/E_SIG_THRESHOLD: .* has 1 of 2 signatures/),
  });

  const work = file('work.json');
  const half = await fleet.hypha(
    ...apply,
    '--message',
    'second pair of eyes',
    '--sign-only',
    '--out',
    work,
  );
  expect(half.stdout).toContain('operators: 1 of 2 (operator); still 1 of: bob');
  const shown = await cosign(work, '--show');
  expect(shown.stdout).toContain('await volume("data", { size: "1MiB" })');
  expect(await cosignByOpenssl(work, 'bob')).toContain('operators: 2 of 2 (operator, bob)');
  const done = await fleet.hypha('submit', work);
  expect(done).toMatchObject({ code: 0, stdout: expect.stringContaining('receipt verified') });
});

test('a file prepared without any key is signed by two machines and sent by a third', {
  timeout: TEST_MS_MAX,
}, async () => {
  const work = file('carried.json');
  const apply = ['apply', file('volume.ts'), '--node', 'node-1', '--ttl', '3600'];
  await fleet.hypha(...apply, '--unsigned', '--out', work);
  const carried = JSON.parse(readFileSync(work, 'utf8'));
  expect(Object.keys(carried).sort()).toEqual(['authority', 'checkpoint', 'envelope']);
  expect(await fleet.hypha('submit', work)).toMatchObject({ code: 3 });
  expect(await cosign(work, '--key', 'bob.pem')).toMatchObject({ code: 0 });
  expect(await cosign(work, '--key', 'bob.pem')).toMatchObject({
    code: 3,
    stderr: expect.stringContaining('E_CONFLICT'),
  });
  expect(await cosign(work, '--key', 'root-a.pem')).toMatchObject({
    code: 3,
    stderr: expect.stringContaining('E_UNKNOWN_KEY'),
  });
  const operator = join(fleet.state, 'keys', 'operator.pem');
  expect(await cosign(work, '--key', operator)).toMatchObject({ code: 0 });
  expect(await fleet.hypha('submit', work, '--via', 'node')).toMatchObject({ code: 0 });
});

test('a name that two keys have revokes neither', { timeout: TEST_MS_MAX }, async () => {
  for (const name of ['twin-1', 'twin-2']) {
    await makeKey(name);
    await fleet.hypha('authority', 'grant', file(`${name}.pem`), '--name', 'twin');
  }
  const { code, stderr } = await fleet.hypha('authority', 'revoke', 'twin');
  expect({ code, stderr }).toEqual({
    code: 2,
    stderr: expect.stringMatching(
      /2 keys are named twin\n {2}ed25519:\S+ \(operator, active\)\n {2}ed25519:/,
    ),
  });
});

test('a revocation that is waited for says who knows, what it stopped and what is left to do', {
  timeout: 2 * TEST_MS_MAX,
}, async () => {
  const byBoth = ['--node', 'node-1', '--key', 'operator', '--key', file('bob.pem')];
  const started = await fleet.hypha(
    ...['apply', file('endless.ts'), ...byBoth],
    ...['--secret', 'token=cmd:printf s3', '--detach', '-o', 'json'],
  );
  expect(started).toMatchObject({ code: 0 });
  const [{ run = '' } = {}] = JSON.parse(started.stdout).runs;
  await waitFor(async () => (await fleet.coordinator.run(run)).state === 'running', {
    timeoutMs: TEST_MS_MAX,
  });
  const silent = fleet.pid('node-2');
  process.kill(silent, 'SIGSTOP');
  try {
    const isSilent = async () =>
      (await fleet.ledger.listNodes({ state: 'unreachable' })).items.length === 1;
    await waitFor(isSilent, { timeoutMs: UNREACHABLE_MS_MAX });
    const revoked = await fleet.hypha(
      ...['authority', 'revoke', 'bob', '--reason', 'laptop lost', '--wait', '-o', 'json'],
    );
    expect({ code: revoked.code, stderr: revoked.stderr }).toMatchObject({
      code: 0,
      stderr: expect.stringContaining('node-1 knows'),
    });
    const report = JSON.parse(revoked.stdout);
    expect(report).toMatchObject({
      complete: true,
      nodes: [
        { name: 'node-1', knows: true },
        { name: 'node-2', knows: false, why: expect.stringMatching(/^unreachable since 20/) },
      ],
      stopped: [{ run, state: 'failed', problem: { code: 'E_KEY_REVOKED' } }],
      active: [],
      rotate: { 'default/endless': ['token'] },
    });
    const data = report.touched.filter(({ deployment = '' }) => deployment === 'default/data');
    expect(data).toMatchObject([{ mode: 'apply', state: 'succeeded', resources: ['volume data'] }]);
  } finally {
    process.kill(silent, 'SIGCONT');
  }
  const late = await fleet.hypha('apply', file('volume.ts'), ...byBoth);
  expect({ code: late.code, stderr: late.stderr }).toMatchObject({
    code: 3,
    stderr: expect.stringContaining('E_KEY_REVOKED'),
  });
});
