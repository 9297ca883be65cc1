/**
 * Sealed secrets stay sealed (G9), on real processes and, where this machine can, in real containers: the value is in
 * the container and nowhere else. After each thing that happens to it, everything that could hold it is searched.
 */
import { execFile } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import {
  fromBase64,
  isHyphaError,
  parseStrictJson,
  type RunView,
  ScriptPayload,
  sealSecrets,
} from '@hypha/protocol';
import { waitFor } from '@hypha/testkit';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type CliResult, Fleet, root } from './fixtures/fleet.ts';
import { findInFiles, findInProcesses, holdsText } from './fixtures/plaintext-search.ts';
import { processTree } from './fixtures/process-tree.ts';
import { lackForRealSals } from './fixtures/real-sals.ts';
import { SignedRuns } from './fixtures/signed-runs.ts';

const run = promisify(execFile);
const lack = lackForRealSals();
const isReal = lack === undefined;
const WAIT_MS_MAX = 60_000;
/** Each searches gigabytes, some more than once. */
const TEST_MS_MAX = 240_000;
const VARIABLE = 'HYPHA_TEST_SECRET';
const random = (count: number) => new Uint8Array(randomBytes(count));

/** The deployment under test: one secret as a file, and in a variable on request. */
const SCRIPT = `import { container, secret } from 'hypha';
export const deployment = {
  name: 'safe', secrets: ['token'],
  input: { image: 'image', then: { type: 'string', default: 'nothing' } },
};
export default async function deploy({ image, then }) {
  const spec = { image, command: ['/bin/sleep', '1000'], memory: '16MiB', cpus: 0.05 };
  const one = await container('one', {
    ...spec, files: { '/run/secrets/token': secret('token') }, env: { TOKEN: secret('token') },
  });
  if (then === 'fail') throw new Error('on purpose');
  if (then === 'wait') {
    await container('two', {
      ...spec, health: { exec: ['/bin/ls', '/tmp/go'], within: '120s' },
      files: { '/run/secrets/token': secret('token') },
    });
  }
  return one.address;
}
`;

let fleet: Fleet;
let runs: SignedRuns;
let image: string;
let script: string;
let folder: string;
/** Every value that was ever given. */
const markers: string[] = [];

/** Random letters, and then what encodings get wrong. */
function newValue(): { marker: string; value: string } {
  const marker = `mark${randomBytes(12).toString('hex')}`;
  markers.push(marker);
  return { marker, value: `${marker}"\\ü'$HOME\n` };
}

/** The value goes to the CLI by its environment, where only that process has it. */
async function apply(value: string | undefined, ...more: string[]): Promise<CliResult> {
  const source = value === undefined ? 'keep' : `env:${VARIABLE}`;
  if (value !== undefined) process.env[VARIABLE] = value;
  try {
    return await fleet.hypha(
      ...['apply', script, '-i', `image=${image}`, '--secret', `token=${source}`],
      ...['--cpus', '0.2', '--memory', '64MiB', '--storage', '32MiB', ...more],
    );
  } finally {
    delete process.env[VARIABLE];
  }
}

async function applied(value: string | undefined, ...more: string[]): Promise<CliResult> {
  const result = await apply(value, ...more);
  expect(result, result.stderr).toMatchObject({ code: 0 });
  return result;
}

async function instanceOf(name: string): Promise<{ instance: string; pid: number }> {
  const resource = { realm: 'default', deployment: 'safe', kind: 'container', name };
  const { info, specHash } = await fleet.node.resource(resource);
  if (!isReal) return { instance: specHash, pid: 0 };
  return info as unknown as { instance: string; pid: number };
}

/** As a process in the container sees it. */
async function seenIn(name: string): Promise<{ file: string; variable: string | undefined }> {
  const { pid } = await instanceOf(name);
  const file = readFileSync(`/proc/${pid}/root/run/secrets/token`, 'utf8');
  const variables = readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0');
  return { file, variable: variables.find((each) => each.startsWith('TOKEN='))?.slice(6) };
}

async function expectSeen(value: string): Promise<void> {
  if (!isReal) return;
  expect(await seenIn('one')).toEqual({ file: value, variable: value });
}

/** Makes a container healthy that waits for a file; false while it cannot be reached. */
async function letGo(name: string): Promise<boolean> {
  try {
    writeFileSync(`/proc/${(await instanceOf(name)).pid}/root/tmp/go`, '');
    return true;
  } catch {
    return false;
  }
}

const isOver = ({ endedAt }: RunView) => endedAt !== null;

/** What of the fleet's node ends with the machine: it is named after the node's state folder. */
function runFolder(): string {
  const hash = createHash('sha256').update(join(fleet.state, 'nodes/node-1')).digest('hex');
  return join('/run', `hypha-${hash.slice(0, 8)}`);
}

/** Files that hold plaintext now. */
function heldValues(): string[] {
  const path = join(runFolder(), 'secrets');
  return existsSync(path) ? readdirSync(path) : [];
}

/** All that the three services say to whoever may read. */
async function readEverything(): Promise<string> {
  const parts: unknown[] = [];
  for (const service of [fleet.node, fleet.coordinator]) {
    const { items } = await service.listRuns({ limit: 500 });
    parts.push(items);
    for (const { run: id } of items) {
      parts.push(await service.run(id), await service.journal(id));
      parts.push(decodedEntry({ envelope: await service.envelope(id) }));
      parts.push(await service.output(id).catch(textOf), await service.receipt(id).catch(textOf));
    }
  }
  const { items: resources } = await fleet.node.listResources({ limit: 500 });
  parts.push(resources, (await fleet.node.listSecrets({ limit: 500 })).items);
  parts.push((await fleet.ledger.listEntries({ limit: 500 })).items.map(decodedEntry));
  parts.push((await fleet.coordinator.listDeployments({ limit: 500 })).items);
  for (const resource of resources.filter(
    ({ kind, simulated }) => kind === 'container' && !simulated,
  )) {
    const signal = AbortSignal.timeout(WAIT_MS_MAX);
    for await (const { data } of fleet.node.resourceLogs(resource, { signal })) parts.push(data);
  }
  return JSON.stringify(parts);
}

const textOf = (error: unknown) => String(error);

function decodedEntry({ envelope }: { envelope: { payload: string } }): string {
  return Buffer.from(envelope.payload, 'base64').toString();
}

/** What is no secret is found where secrets are looked for. */
async function expectSearchWorks(): Promise<void> {
  const { items } = await fleet.node.listRuns({ deployment: 'safe', limit: 1 });
  const found = findInFiles(fleet.state, items[0]?.run.slice('run_'.length) ?? '');
  for (const place of ['/redis/', '/journal.db', '/coordinator/', '/log/']) {
    expect(found).toContainEqual(expect.stringContaining(place));
  }
}

/** The whole search, for every value so far. */
async function expectNowhere(): Promise<void> {
  const said = await readEverything();
  expect(said).toContain('"safe"');
  await expectSearchWorks();
  // What waits in the page cache is as good as on the disk.
  await run('sync', []);
  for (const marker of markers) {
    expect(findInFiles(fleet.state, marker)).toEqual([]);
    if (existsSync(runFolder())) expect(findInFiles(runFolder(), marker)).toEqual([]);
    expect(findInProcesses(marker, processTree(fleet.upPid))).toEqual([]);
    expect(holdsText(said, marker)).toBe(false);
  }
}

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'hypha-secrets-'));
  script = join(folder, 'safe.ts');
  writeFileSync(script, SCRIPT);
  fleet = await Fleet.start('--storage', '512MiB', '--sals', isReal ? 'real' : 'simulated');
  runs = await SignedRuns.open(fleet);
  const layout = join(fleet.state, 'image');
  if (isReal) await run(join(root, 'scripts/demo-image'), [layout]);
  image = isReal ? `oci:${layout}:web` : `example.invalid/web@sha256:${'0'.repeat(64)}`;
});
afterAll(async () => {
  await fleet?.[Symbol.asyncDispose]();
  if (folder !== undefined) rmSync(folder, { recursive: true });
});

test('the search finds a text in every spelling, across the pieces of a file', () => {
  const marker = 'mark0123456789abcdef0123';
  const bytes = Buffer.from(`xx${marker}yy`);
  const spellings = [
    ...[bytes, bytes.subarray(1), bytes.subarray(2)].map((part) => part.toString('base64')),
    ...[
      bytes.toString('hex'),
      JSON.stringify(bytes.toString()),
      `${'\0'.repeat(4_194_300)}${bytes}`,
    ],
  ];
  for (const [index, text] of spellings.entries()) {
    const file = join(folder, `spelling-${index}`);
    writeFileSync(file, text);
    expect(findInFiles(folder, marker)).toEqual([file]);
    rmSync(file);
  }
  expect(findInFiles(folder, marker)).toEqual([]);
});

describe('a secret', { timeout: TEST_MS_MAX }, () => {
  let value: string;
  let first: { instance: string };

  test('is in its container and nowhere else', async () => {
    ({ value } = newValue());
    const { stderr } = await applied(value);
    expect(stderr).toContain('warning: the secret in env TOKEN');
    await expectSeen(value);
    first = await instanceOf('one');
    await expectNowhere();
  });

  test('is on a tmpfs that only root can enter', async ({ skip }) => {
    skip(!isReal, lack);
    const mounts = readFileSync('/proc/self/mountinfo', 'utf8').split('\n');
    const mount = mounts.find((line) => line.split(' ')[4] === join(runFolder(), 'secrets')) ?? '';
    expect(mount).toMatch(/nosuid,nodev,noexec.* - tmpfs /);
    expect(heldValues()).toHaveLength(1);
  });

  test('sealed again with the same value, or kept, is no change', async () => {
    await applied(value);
    await applied(undefined);
    expect((await instanceOf('one')).instance).toBe(first.instance);
    await expectSeen(value);
  });

  test('with another value replaces the container, and the old value is gone', async () => {
    ({ value } = newValue());
    await applied(value);
    expect((await instanceOf('one')).instance).not.toBe(first.instance);
    await expectSeen(value);
    await waitFor(async () => (await fleet.node.listSecrets()).items.length === 1, {
      timeoutMs: WAIT_MS_MAX,
      what: 'the old value to be dropped',
    });
    await expectNowhere();
  });

  test('of a run that fails is undone with it, and the one before is back', async () => {
    const before = value;
    const { value: wrong } = newValue();
    const { code } = await apply(wrong, '-i', 'then=fail');
    expect(code).toBe(1);
    await expectSeen(before);
    await applied(undefined);
    await expectSeen(before);
    await expectNowhere();
  });

  test('survives SIGKILL of everything in the middle of a run', async () => {
    ({ value } = newValue());
    const { stdout } = await applied(value, '-i', 'then=wait', '--detach', '-o', 'json');
    const { runs: accepted } = JSON.parse(stdout) as { runs: { run: string }[] };
    const id = accepted[0]?.run ?? '';
    await waitFor(async () => (await fleet.node.run(id)).steps >= 1, {
      timeoutMs: WAIT_MS_MAX,
      what: 'the first step',
    });
    await fleet.kill();
    await fleet.up();
    if (isReal) {
      await waitFor(
        async () => (await instanceOf('two').catch(() => undefined))?.pid !== undefined,
        {
          timeoutMs: WAIT_MS_MAX,
          what: 'the second container',
        },
      );
      await expectNowhere();
      await waitFor(async () => (await letGo('two')) && isOver(await fleet.node.run(id)), {
        timeoutMs: WAIT_MS_MAX,
        what: 'the end of the run',
      });
    }
    await runs.events(id);
    expect((await fleet.node.run(id)).state).toBe('succeeded');
    await expectSeen(value);
    if (isReal) expect((await seenIn('two')).file).toBe(value);
    await expectNowhere();
  });

  test('is listed by name and version, without its value', async () => {
    // What only finished runs used is dropped a moment after they ended.
    await waitFor(async () => (await fleet.node.listSecrets()).items.length === 1, {
      timeoutMs: WAIT_MS_MAX,
      what: 'the former values to be dropped',
    });
    const { stdout } = await fleet.hypha('secret', 'list', 'safe', '-o', 'json');
    expect(JSON.parse(stdout)).toMatchObject([
      {
        name: 'token',
        version: expect.stringMatching(/^[0-9a-f]{32}$/),
        usedBy: ['container/one', 'container/two'],
      },
    ]);
    for (const marker of markers) expect(holdsText(stdout, marker)).toBe(false);
  });

  test('is gone when its deployment is destroyed', async () => {
    const { code } = await fleet.hypha('destroy', 'safe');
    expect(code).toBe(0);
    await waitFor(async () => (await fleet.node.listSecrets()).items.length === 0, {
      timeoutMs: WAIT_MS_MAX,
      what: 'the values to be dropped',
    });
    await expectNowhere();
    expect(heldValues()).toEqual([]);
    const { stdout, stderr } = await apply(undefined);
    expect(stdout + stderr).toContain('E_SECRET: default/safe has no secret token here to keep');
  });
});

describe('a node refuses', { timeout: TEST_MS_MAX }, () => {
  const source = 'export default () => 1;';

  async function refusalOf(payload: ScriptPayload): Promise<string> {
    try {
      await fleet.node.submit({ envelope: runs.signPayload(payload) });
    } catch (error) {
      if (isHyphaError(error)) return `${error.code} ${error.message}`;
      throw error;
    }
    return 'accepted';
  }

  test('a box that was moved to another envelope', async () => {
    const { marker, value } = newValue();
    await applied(value);
    const { items } = await fleet.node.listRuns({ deployment: 'safe', limit: 1 });
    const envelope = await fleet.node.envelope(items[0]?.run ?? '');
    const { secrets } = ScriptPayload.parse(parseStrictJson(fromBase64(envelope.payload)));
    expect(Object.keys(secrets)).toHaveLength(1);
    const payload = runs.draft({ deployment: 'thief', generation: 1, source });
    const refusal = await refusalOf({ ...payload, secrets });
    expect(refusal).toMatch(/^E_SECRET .* were sealed for another id/);
    expect(holdsText(refusal, marker)).toBe(false);
  });

  test('a box for another node', async () => {
    const { value } = newValue();
    const payload = runs.draft({ deployment: 'other', generation: 1, source });
    const [node = ''] = payload.aud.nodes;
    const sealKey = random(32);
    const context = { realm: payload.realm, node, id: payload.id };
    const box = sealSecrets({ token: value }, { context, sealKey, randomBytes: random });
    expect(await refusalOf({ ...payload, secrets: { [node]: box } })).toMatch(
      /^E_SECRET .* not sealed to this node/,
    );
  });
});

test('a node that is stopped leaves no plaintext on the machine', async () => {
  if (isReal) expect(heldValues()).toHaveLength(1);
  await fleet.down();
  expect(existsSync(runFolder())).toBe(false);
  await run('sync', []);
  for (const marker of markers) expect(findInFiles(fleet.state, marker)).toEqual([]);
});
