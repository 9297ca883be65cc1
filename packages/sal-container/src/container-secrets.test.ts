import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { HyphaError } from '@hypha/protocol';
import type { SecretFiles } from '@hypha/sal';
import { afterEach, expect, test } from 'vitest';
import { nodeOfEachTest } from './testing/node-of-each-test.ts';
import type { ScratchNode } from './testing/scratch-node.ts';

const [ONE, TWO] = ['1'.repeat(32), '2'.repeat(32)];
const PATH = '/run/secrets/token';
const token = (version: string) => ({ secret: 'token', version });

/** As a supervisor keeps them: files that only root can get at. */
class Values implements SecretFiles {
  readonly #folder: string;
  readonly #values: ReadonlyMap<string, string>;
  readonly asked: string[] = [];

  constructor(folder: string, values: Readonly<Record<string, string>>) {
    this.#folder = folder;
    this.#values = new Map(Object.entries(values));
  }

  async provide(
    { realm, deployment }: { realm: string; deployment: string },
    refs: readonly { version: string }[],
  ) {
    const files = new Map<string, string>();
    for (const { version } of refs) {
      this.asked.push(`${realm}/${deployment}/${version[0]}`);
      const value = this.#values.get(version);
      if (value === undefined) throw new HyphaError('E_SECRET', 'no such value here');
      files.set(version, join(this.#folder, version));
      await writeFile(join(this.#folder, version), value, { mode: 0o444 });
    }
    return files;
  }
}

let node: ScratchNode;
let folder: string;
// After the node, which may still have files of it mounted.
afterEach(async () => {
  if (folder !== undefined) await rm(folder, { recursive: true });
});
nodeOfEachTest(async (made) => {
  node = made;
  folder = await mkdtemp(join(tmpdir(), 'hypha-values-'));
  node.secrets = new Values(folder, { [ONE]: 'first "value"\n', [TWO]: 'second' });
});

async function outputOf(...command: string[]): Promise<string> {
  const { stdout, stderr } = (await node.exec('web', command)) as Record<string, string>;
  return `${stdout}${stderr}`;
}

test('a secret in files is there for any user of the container, read-only, byte by byte', async () => {
  await node.ensure('web', { user: '1000:1000', files: { [PATH]: token(ONE), '/a': 'text' } });
  expect(await outputOf('/bin/cat', PATH)).toBe('first "value"\n');
  expect(await outputOf('/bin/sh', '-c', `echo x >${PATH}`)).toMatch(/Read-only file system/);
  expect(await outputOf('/bin/cat', '/a')).toBe('text');
});

test('a secret in env is there for the program and for commands that are run beside it', async () => {
  await node.ensure('web', { env: { TOKEN: token(TWO), MODE: 'plain' } });
  expect(await outputOf('/bin/sh', '-c', 'echo $TOKEN $MODE')).toBe('second plain\n');
});

test('another version is another container, the same is the same', async () => {
  await node.ensure('web', { files: { [PATH]: token(ONE) } });
  const { id } = await node.current('web');
  await node.ensure('web', { files: { [PATH]: token(ONE) } }, 'b');
  expect((await node.current('web')).id).toBe(id);
  await node.ensure('web', { files: { [PATH]: token(TWO) } }, 'c');
  expect((await node.current('web')).id).not.toBe(id);
  expect(await outputOf('/bin/cat', PATH)).toBe('second');
});

test('a container that is repaired gets its secrets again', async () => {
  const spec = { files: { [PATH]: token(ONE) } };
  await node.ensure('web', spec);
  process.kill(await node.pid('web'), 'SIGKILL');
  await expect
    .poll(async () => (await node.observe('web', spec)).state, { timeout: 20_000 })
    .not.toBe('running');
  // As after a reboot: whoever keeps secrets has to write the files again.
  await rm(folder, { recursive: true });
  await mkdir(folder);
  node.laterMs = 60_000;
  await node.converge('web', spec);
  expect(await outputOf('/bin/cat', PATH)).toBe('first "value"\n');
});

test('is asked for once, with the deployment it belongs to, and only when there is one', async () => {
  const values = new Values(folder, { [ONE]: 'x' });
  node.secrets = values;
  await node.ensure('web', { files: { '/a': 'text' } });
  expect(values.asked).toEqual([]);
  const files = Object.fromEntries(
    Array.from({ length: 100 }, (_, at) => [`/run/secrets/${at}`, token(ONE)]),
  );
  await node.ensure('web', { files, env: { TOKEN: token(ONE) } }, 'b');
  expect(values.asked).toEqual(['default/contract/1']);
});

test.for([
  ['that the node does not have', { files: { [PATH]: token('3'.repeat(32)) } }, 'E_SECRET'],
  ['too long for a variable', { env: { TOKEN: token(ONE) } }, 'E_ARGUMENT'],
] as const)('a secret %s starts no container', async ([, spec, code]) => {
  node.secrets = new Values(folder, { [ONE]: 'x'.repeat(128 * 1024) });
  await expect(node.ensure('web', spec)).rejects.toMatchObject({ code });
  expect((await node.observe('web', spec)).state).not.toBe('running');
});
