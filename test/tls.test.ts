/** A fleet of real processes that speak TLS only, with certificates of a CA of their own. */
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import { join } from 'node:path';
import { connect } from 'node:tls';
import { CoordinatorClient } from '@hypha/client';
import { isTerminal } from '@hypha/protocol';
import {
  createTestCa,
  isOpensslInstalled,
  isRedisInstalled,
  openTempDir,
  signedScript,
  type TempDir,
  type TestCa,
  waitFor,
} from '@hypha/testkit';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { root } from './fixtures/fleet.ts';
import { endedService, startService } from './fixtures/service-process.ts';
import { TlsFleet } from './fixtures/tls-fleet.ts';

const CLI_MS_MAX = 30_000;
const lacks = [
  ...(isOpensslInstalled() ? [] : ['openssl']),
  ...((await isRedisInstalled()) ? [] : ['redis-server']),
];

let folder: TempDir;
let ours: TestCa;
let theirs: TestCa;
let fleet: TlsFleet;
beforeAll(async () => {
  if (lacks.length > 0) return;
  folder = await openTempDir('tls');
  ours = await createTestCa(folder.path, 'ours');
  theirs = await createTestCa(folder.path, 'theirs');
  fleet = await TlsFleet.start(folder.path, ours);
});
afterAll(async () => {
  await fleet?.[Symbol.asyncDispose]();
  await folder?.[Symbol.asyncDispose]();
});

function tlsTest(name: string, check: () => Promise<void>): void {
  test(name, async (context) => {
    if (lacks.length > 0) context.skip(`needs ${lacks.join(', ')}`);
    await check();
  });
}

/** One CLI command, its context being in `state`. */
function hypha(state: string, ...args: string[]) {
  return new Promise<{ code: number; stdout: string; stderr: string }>((resolve) => {
    execFile(
      join(root, 'bin/hypha'),
      [...args, '--state', state],
      { timeout: CLI_MS_MAX },
      (error, stdout, stderr) => {
        resolve({ code: error === null ? 0 : Number(error.code ?? -1), stdout, stderr });
      },
    );
  });
}

tlsTest('a signed script goes its whole way over TLS', async () => {
  const nodes = [fleet.node];
  const envelope = signedScript(
    { authority: fleet.authority, operator: fleet.keys.operator },
    { draft: { nodes, source: 'export default async function deploy() { return 7; }\n' } },
  );
  const { runs } = await fleet.coordinator.submit({ envelope });
  const run = runs[0]?.run ?? '';
  const view = await waitFor(async () => {
    const found = await fleet.coordinator.run(run);
    return isTerminal(found.state) ? found : undefined;
  });
  expect(view).toMatchObject({ state: 'succeeded', node: fleet.node });
  expect(await fleet.nodeApi.output(run)).toMatchObject({ output: 7 });
  const { items } = await waitFor(async () => {
    const page = await fleet.ledger.listEntries({ kind: 'receipt', run });
    return page.items.length > 0 ? page : undefined;
  });
  expect(items).toHaveLength(1);
});

tlsTest('a certificate of another CA is refused, and the refusal says what to do', async () => {
  const url = fleet.urlOf('coordinator');
  for (const ca of [undefined, theirs.ca]) {
    const client = fleet.client(CoordinatorClient, url, ca);
    await expect(client.listRuns(), `trusting ${ca ?? 'the system'}`).rejects.toMatchObject({
      code: 'E_UNAVAILABLE',
      message: expect.stringContaining(`cannot trust the certificate of GET ${url}`),
      hint: expect.stringContaining('--ca FILE'),
    });
  }
});

tlsTest('nothing is served without TLS, nor with an old version of it', async () => {
  const { port, hostname } = new URL(fleet.urlOf('ledger'));
  const plain = request({ host: hostname, port, path: '/healthz' });
  plain.end();
  const [error] = await once(plain, 'error');
  expect(error).toBeInstanceOf(Error);
  const old = connect({ host: hostname, port: Number(port), maxVersion: 'TLSv1.1' });
  const [refusal] = await once(old, 'error');
  expect(refusal).toBeInstanceOf(Error);
  const modern = connect({ host: hostname, port: Number(port), rejectUnauthorized: false });
  await once(modern, 'secureConnect');
  expect(modern.getProtocol()).toBe('TLSv1.3');
  modern.destroy();
  expect((await fleet.ledger.genesis()).hash).toBe(fleet.authority.genesisHash);
});

tlsTest('the command line trusts the CA that its context or a flag names', async () => {
  const state = join(folder.path, 'cli');
  const untrusting = join(folder.path, 'cli-untrusting');
  const context = {
    ledger: fleet.urlOf('ledger'),
    coordinator: fleet.urlOf('coordinator'),
    genesis: fleet.authority.genesisHash,
    keys: { operator: fleet.operatorKeyFile },
    nodes: [{ id: fleet.node, name: 'node-1', url: fleet.urlOf('supervisor') }],
  };
  for (const [dir, ca] of [
    [state, { ca: ours.ca }],
    [untrusting, {}],
  ] as const) {
    await mkdir(dir);
    await writeFile(join(dir, 'context.json'), JSON.stringify({ ...context, ...ca }));
  }
  expect(await hypha(state, 'status')).toMatchObject({ code: 0 });
  expect(await hypha(state, 'node', 'list', '-o', 'json')).toMatchObject({
    code: 0,
    stdout: expect.stringContaining(fleet.node),
  });
  expect(await hypha(state, 'run', 'list', '--via', 'node')).toMatchObject({ code: 0 });
  expect(await hypha(untrusting, 'node', 'list', '--ca', ours.ca)).toMatchObject({ code: 0 });
  for (const flags of [[], ['--ca', theirs.ca]]) {
    expect(await hypha(untrusting, 'node', 'list', ...flags)).toMatchObject({
      code: 69,
      stderr: expect.stringContaining('cannot trust the certificate'),
    });
  }
});

tlsTest('a certificate that cannot be used ends a service with 78, naming the flag', async () => {
  const state = join(folder.path, 'unused');
  const start = (flags: Record<string, string>) =>
    endedService('coordinator', { state, port: 0, ...flags });
  expect(await start({ 'tls-cert': ours.cert })).toMatchObject({
    code: 78,
    log: expect.stringContaining('--tls-key: (not set)'),
  });
  expect(await start({ 'tls-cert': ours.cert, 'tls-key': theirs.key })).toMatchObject({
    code: 78,
    log: expect.stringContaining('--tls-cert: '),
  });
  expect(await start({ 'tls-cert': ours.cert, 'tls-key': `${ours.key}.none` })).toMatchObject({
    code: 78,
    log: expect.stringContaining('--tls-key: '),
  });
  expect(await start({ 'tls-ca': ours.key })).toMatchObject({
    code: 78,
    log: expect.stringContaining('--tls-ca: '),
  });
});

tlsTest('a listener beyond this machine without TLS is warned about', async () => {
  const state = join(folder.path, 'warned');
  const told = async (flags: Record<string, string | number>) => {
    await using service = await startService('coordinator', { state, port: 0, ...flags });
    return service.log().includes('listener without TLS');
  };
  expect(await told({ host: '0.0.0.0' })).toBe(true);
  expect(await told({ host: '127.0.0.1' })).toBe(false);
  expect(await told({ host: '0.0.0.0', ...fleet.tls })).toBe(false);
});
