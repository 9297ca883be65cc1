/** `hypha cosign` as a process on a machine that has nothing but a file and a key. */
import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Envelope, fromBase64, preAuthEncoding, signScript } from '@hypha/protocol';
import { createFleet, createKey, openTempDir, scriptPayloadOf } from '@hypha/testkit';
import { afterAll, expect, test } from 'vitest';
import { runCli } from '../testing/cli-process.ts';

const TEST_MS_MAX = 60_000;
const fleet = createFleet();
const { authority, operator } = fleet;
const dir = await openTempDir();
afterAll(() => dir[Symbol.asyncDispose]());

const file = (name: string) => join(dir.path, name);
writeFileSync(file('operator.pem'), operator.pem, { mode: 0o600 });
writeFileSync(file('stranger.pem'), createKey().pem, { mode: 0o600 });

/** Writes an unsigned file and answers its envelope. */
function prepare(name: string, message = 'why'): Envelope {
  const nodes = [`node_${'a'.repeat(32)}`];
  const envelope = signScript(scriptPayloadOf(fleet, { draft: { nodes, message } }), []);
  writeFileSync(file(name), JSON.stringify({ envelope, authority: authority.updates }));
  return envelope;
}

const read = (name: string) => JSON.parse(readFileSync(file(name), 'utf8'));

test('shows what is signed, signs it and says that it is complete', {
  timeout: TEST_MS_MAX,
}, async () => {
  prepare('work.json');
  const { code, stdout, stderr } = await runCli(
    dir.path,
    ...['cosign', 'work.json', '--key', 'operator.pem', '-o', 'json'],
  );
  expect({ code, stderr }).toMatchObject({
    code: 0,
    stderr: expect.stringContaining('apply of default/web'),
  });
  expect(stderr).toContain(`genesis ${authority.genesisHash}: nothing here pins it`);
  expect(JSON.parse(stdout)).toMatchObject({
    kind: 'script',
    complete: true,
    signatures: [{ name: 'olivia' }],
  });
  expect(read('work.json').envelope.signatures).toHaveLength(1);
});

test('leaves the file as it was when the key has no part in it', {
  timeout: TEST_MS_MAX,
}, async () => {
  prepare('work.json');
  const before = readFileSync(file('work.json'), 'utf8');
  const refused = await runCli(dir.path, 'cosign', 'work.json', '--key', 'stranger.pem');
  expect(refused).toMatchObject({
    code: 3,
    stdout: '',
    stderr: expect.stringContaining('E_UNKNOWN_KEY'),
  });
  expect(readFileSync(file('work.json'), 'utf8')).toBe(before);
});

test('signs nothing that its mode has no use for', { timeout: TEST_MS_MAX }, async () => {
  const node = `node_${'a'.repeat(32)}`;
  const draft = { nodes: [node], mode: 'task', expect: { [node]: 'b'.repeat(64) } } as const;
  const envelope = signScript(scriptPayloadOf(fleet, { draft }), []);
  writeFileSync(file('task.json'), JSON.stringify({ envelope, authority: authority.updates }));
  const refused = await runCli(dir.path, 'cosign', 'task.json', '--key', 'operator.pem');
  expect(refused).toMatchObject({ code: 3, stderr: expect.stringContaining('E_UNSUPPORTED') });
  expect(read('task.json').envelope.signatures).toEqual([]);
});

test('is for the fleet that is expected, and no other', { timeout: TEST_MS_MAX }, async () => {
  prepare('work.json');
  const other = createHash('sha256').update('other').digest('hex');
  const refused = await runCli(
    dir.path,
    ...['cosign', 'work.json', '--genesis', other, '--key', 'operator.pem'],
  );
  expect(refused).toMatchObject({ code: 3, stderr: expect.stringContaining('E_AUTHORITY') });
});

test('writes exactly the bytes that another tool has to sign', {
  timeout: TEST_MS_MAX,
}, async () => {
  const { payloadType, payload } = prepare('work.json', 'grüße');
  const { stdout } = await runCli(dir.path, 'cosign', 'work.json', '--pae');
  const expected = preAuthEncoding(payloadType, fromBase64(payload));
  expect(Buffer.from(stdout)).toEqual(Buffer.from(expected));
});

test('lets no text in the file act on the terminal', { timeout: TEST_MS_MAX }, async () => {
  prepare('work.json', 'ok\u001b[2J\u202egnp.exe');
  const { stdout, stderr } = await runCli(dir.path, 'cosign', 'work.json');
  expect(stderr).toContain('ok\\u{1b}[2J\\u{202e}gnp.exe');
  const shown = await runCli(dir.path, 'cosign', 'work.json', '--show');
  for (const text of [stdout, stderr, shown.stdout]) {
    expect(text).not.toContain('\u001b');
    expect(text).not.toContain('\u202e');
  }
});

test.for([
  ['what is no JSON', 'not json', 3, 'E_ENVELOPE'],
  ['JSON of another shape', '{"a":1}', 3, 'E_ENVELOPE'],
  ['a member twice', '{"envelope":{},"envelope":{}}', 3, 'E_ENVELOPE'],
] as const)('refuses %s', { timeout: TEST_MS_MAX }, async ([, text, code, says]) => {
  writeFileSync(file('bad.json'), text);
  const refused = await runCli(dir.path, 'cosign', 'bad.json', '--key', 'operator.pem');
  expect(refused).toMatchObject({ code, stdout: '', stderr: expect.stringContaining(says) });
});

test('refuses a signature without a key, and one that is not over these bytes', {
  timeout: TEST_MS_MAX,
}, async () => {
  prepare('work.json');
  const signature = Buffer.alloc(64, 1).toString('base64');
  const args = ['cosign', 'work.json', '--signature', signature];
  expect(await runCli(dir.path, ...args)).toMatchObject({ code: 2 });
  expect(await runCli(dir.path, ...args, '--public-key', 'operator.pem')).toMatchObject({
    code: 3,
    stderr: expect.stringMatching(
      /E_SIG_\w+: the signature of ed25519:\S+ is not over these bytes/,
    ),
  });
});

test('a genesis of two is made by two who never meet', { timeout: TEST_MS_MAX }, async () => {
  for (const name of ['root-a', 'root-b']) {
    writeFileSync(file(`${name}.pem`), createKey().pem, { mode: 0o600 });
  }
  const { stdout: shown } = await runCli(dir.path, 'key', 'show', 'root-b.pem', '-o', 'json');
  const init = [
    'authority',
    'init',
    '--root-key',
    'root-a.pem',
    '--root-key',
    JSON.parse(shown).publicKey,
  ];
  const half = [...init, '--threshold', '2', '--out', 'genesis.json'];
  expect(await runCli(dir.path, ...half)).toMatchObject({
    code: 3,
    stderr: expect.stringContaining('root keys: 1 of 2 (root-a); still 1 of: root-2'),
  });
  expect(await runCli(dir.path, ...half, '--sign-only')).toMatchObject({ code: 0 });
  const signed = await runCli(dir.path, 'cosign', 'genesis.json', '--key', 'root-b.pem');
  expect(signed).toMatchObject({
    code: 0,
    stdout: expect.stringContaining('start the ledger with it'),
  });
  expect(read('genesis.json')).toMatchObject({ signatures: [{}, {}] });
  expect(await runCli(dir.path, ...half, '--sign-only')).toMatchObject({
    code: 3,
    stderr: expect.stringContaining('E_CONFLICT'),
  });
});
