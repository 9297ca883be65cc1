/** The command line as a process: what comes out, where, and with which exit code. */
import { execFile } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { generateKey } from '@hypha/protocol/node';
import { afterAll, beforeAll, expect, test } from 'vitest';

const MAIN = fileURLToPath(new URL('main.ts', import.meta.url));
const DEADLINE_MS = 30_000;
/** The JSON of so many keys is more than a pipe holds. */
const KEYS = 800;

let state: string;
beforeAll(() => {
  state = mkdtempSync(join(tmpdir(), 'hypha cli-'));
  const { pem } = generateKey();
  mkdirSync(join(state, 'keys'));
  for (let n = 0; n < KEYS; n++) {
    writeFileSync(join(state, 'keys', `key-${n}.pem`), pem, { mode: 0o600 });
  }
});
afterAll(() => rmSync(state, { recursive: true }));

interface Outcome {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

function hypha(...args: readonly string[]): Promise<Outcome> {
  return run(process.execPath, [MAIN, ...args]);
}

function run(command: string, args: readonly string[]): Promise<Outcome> {
  const env = { ...process.env, HOME: state, HYPHA_STATE: state };
  return new Promise((resolve) => {
    execFile(
      command,
      args,
      { env, cwd: state, timeout: DEADLINE_MS, maxBuffer: 16 * 1024 * 1024 },
      (error, stdout, stderr) => {
        const code = error === null ? 0 : Number(error.code ?? -1);
        resolve({ code, stdout, stderr });
      },
    );
  });
}

test(
  'a pipe gets the whole document, however long it is',
  async () => {
    const { code, stdout, stderr } = await run('/bin/sh', [
      // Node's own pipes to children are sockets, which hold more.
      ...['-c', '"$@" | cat', 'sh'],
      ...[process.execPath, MAIN, 'key', 'list', '-o', 'json'],
    ]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout.length).toBeGreaterThan(128 * 1024);
    expect(JSON.parse(stdout)).toHaveLength(KEYS);
  },
  DEADLINE_MS,
);

test.for([
  [['submit', 'nope.json'], 4, 'E_NOT_FOUND: cannot use nope.json: no such file or directory'],
  [['submit', 'keys'], 2, 'E_ARGUMENT: '],
  [['run', 'show', 'nope'], 2, 'E_ARGUMENT: not a run id: "nope"'],
  [['audit', 'export', 'nope'], 2, 'E_ARGUMENT: not a run id: "nope"'],
  [['key', 'show', 'nope'], 4, 'E_NOT_FOUND: cannot read the key file'],
  [['authority', 'init'], 2, "error: required option '--root-key <key>' not specified"],
  [['authority', 'init', '--root-key', 'key-1', '--out', 'no/such'], 4, 'E_NOT_FOUND: cannot use'],
  [['apply', 'nope.ts'], 4, 'E_NOT_FOUND: '],
  [['explain', 'E_NOPE'], 4, 'E_NOT_FOUND: no error code E_NOPE'],
] as const)(
  '%j ends with %d, says why on stderr, and nothing else',
  { timeout: DEADLINE_MS },
  async ([args, code, says]) => {
    writeFileSync(
      join(state, 'context.json'),
      JSON.stringify({
        ledger: 'http://127.0.0.1:1',
        coordinator: 'http://127.0.0.1:1',
        genesis: '0'.repeat(64),
        keys: {},
      }),
    );
    const outcome = await hypha(...args);
    expect(outcome).toMatchObject({ code, stdout: '' });
    expect(outcome.stderr).toContain(says);
    expect(outcome.stderr).not.toContain('internal error');
  },
);

test(
  'a key is named by its file or by its name in the state folder',
  async () => {
    const [byName, byFile] = await Promise.all([
      hypha('key', 'show', 'key-1', '-o', 'json'),
      hypha('key', 'show', 'keys/key-1.pem', '-o', 'json'),
    ]);
    expect(byName.code).toBe(0);
    expect(byName.stdout).toBe(byFile.stdout);
  },
  DEADLINE_MS,
);

test('a key that others may read is refused with 78 and the command that closes it', async () => {
  const file = join(state, 'open.pem');
  writeFileSync(file, generateKey().pem, { mode: 0o644 });
  const { code, stderr } = await hypha('key', 'show', file);
  expect(code).toBe(78);
  expect(stderr).toContain(`chmod 600 ${file}`);
  chmodSync(file, 0o600);
  expect(await hypha('key', 'show', file)).toMatchObject({ code: 0, stderr: '' });
});
