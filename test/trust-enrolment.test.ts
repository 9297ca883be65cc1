/** Who becomes a node, on real processes: `hypha up` without nodes, and machines that join it. */

import { readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { CoordinatorClient, LedgerClient, NodeClient } from '@hypha/client';
import { formatJoinToken, type NodeView, parseJoinToken } from '@hypha/protocol';
import { waitFor } from '@hypha/testkit';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Fleet } from './fixtures/fleet.ts';
import { JoiningMachine } from './fixtures/joining-machine.ts';

const TEST_MS_MAX = 120_000;
const VOLUME = `import { volume } from 'hypha';
export const deployment = { name: 'keeps' };
export default async function deploy() {
  await volume('data', { size: '16MiB' });
}
`;

let fleet: Fleet;
let ports = 0;
beforeAll(async () => {
  fleet = await Fleet.start('--nodes', '0');
});
afterAll(async () => fleet?.[Symbol.asyncDispose]());

/** Up itself has the first two ports. */
const newMachine = () => new JoiningMachine(fleet.portBase + 2 + (ports++ % 6));

function placeFlags(): string[] {
  const { ledger, coordinator } = fleet.line;
  return ['--ledger', ledger.url, '--coordinator', coordinator.url, '--genesis', genesisOf()];
}

function genesisOf(): string {
  const file = join(fleet.state, 'context.json');
  return (JSON.parse(readFileSync(file, 'utf8')) as { genesis: string }).genesis;
}

async function listNodes(): Promise<NodeView[]> {
  return JSON.parse(await fleet.output('node', 'list', '-o', 'json')) as NodeView[];
}

async function findNode(id: string): Promise<NodeView | undefined> {
  return (await listNodes()).find((node) => node.id === id);
}

/** What a key can still do at both services; `E_…` for what is refused. */
async function powersOf(machine: JoiningMachine): Promise<string[]> {
  const { id, signer } = machine;
  const { ledger, coordinator } = fleet.line;
  const clients = [
    new LedgerClient({ baseUrl: ledger.url, signer }),
    new CoordinatorClient({ baseUrl: coordinator.url, signer }),
  ] as const;
  const attempts = [
    () => clients[0].report(id, []),
    () => clients[0].listNodes(),
    () => clients[1].listNodes(),
    () => clients[1].inbox(id, { signal: AbortSignal.timeout(10_000) }).next(),
    () => clients[1].sendOutbox(id, { items: [{ type: 'accepted', messageId: 'm', run: RUN }] }),
  ];
  const outcomes = await Promise.allSettled(attempts.map((attempt) => attempt()));
  await Promise.all(clients.map(({ http }) => http.close()));
  return outcomes.map((outcome) =>
    outcome.status === 'fulfilled' ? 'done' : (outcome.reason as { code: string }).code,
  );
}
const RUN = `run_${'a'.repeat(26)}`;
const NO_POWERS = Array.from({ length: 5 }, () => 'E_UNAUTHENTICATED');

test('a machine without a token waits with its fingerprint, can do nothing, and joins when an admin admits it', {
  timeout: TEST_MS_MAX,
}, async () => {
  await using machine = newMachine();
  machine.start({ args: placeFlags() });
  await machine.waitForRemark(/no admin has admitted node_/);
  const { id } = machine;
  expect(machine.remarks).toContain(`fingerprint: ${id}`);
  expect(await findNode(id)).toMatchObject({ state: 'pending', labels: {} });
  expect(await powersOf(machine)).toEqual(NO_POWERS);
  writeFileSync(join(machine.state, 'early.ts'), VOLUME);
  const early = await fleet.hypha('apply', join(machine.state, 'early.ts'), '--node', id);
  expect(early.stderr).toMatch(/^E_NO(T_FOUND|_PLACEMENT)/);

  const refused = await fleet.hypha('node', 'admit', id.slice(0, 9), '--name', 'attic');
  expect(refused.stderr).toContain('E_ARGUMENT');
  const admitted = await fleet.hypha(
    ...['node', 'admit', id.slice(5, 17), '--name', 'attic', '--label', 'zone=top'],
  );
  expect(admitted.stderr).toContain(id);
  expect(admitted.code).toBe(0);
  expect(await machine.waitUntilReady()).toMatchObject({ id, name: 'attic' });
  expect(await findNode(id)).toMatchObject({
    ...{ state: 'ready', name: 'attic', labels: { zone: 'top' } },
  });
  // A restart needs nothing of it again.
  expect(await machine.stop()).toBe(0);
  machine.start({ args: [] });
  expect(await machine.waitUntilReady()).toMatchObject({ id, name: 'attic' });
});

test('a token lets in one machine, and is on no command line', {
  timeout: TEST_MS_MAX,
}, async () => {
  const token = await fleet.addNode('single');
  await using first = newMachine();
  const file = join(first.state, 'token');
  writeFileSync(file, `${token}\n`, { mode: 0o600 });
  first.start({ args: ['--token-file', file] });
  const { id } = await first.waitUntilReady();
  expect(first.commands().length).toBeGreaterThan(2);
  expect(first.commands().filter((command) => command.includes('hypha1.'))).toEqual([]);

  for (const by of [
    { args: ['-'], stdin: `${token}\n` },
    { args: [], env: { HYPHA_JOIN_TOKEN: token } },
  ]) {
    await using second = newMachine();
    second.start(by);
    await second.waitForRemark(new RegExp(`spent by ${id}`));
    expect(second.commands().filter((command) => command.includes('hypha1.'))).toEqual([]);
    expect((await listNodes()).map((node) => node.id)).not.toContain(second.id);
    expect(await powersOf(second)).toEqual(NO_POWERS);
  }
});

test('a machine tells its token to no ledger of another genesis', {
  timeout: TEST_MS_MAX,
}, async () => {
  const token = parseJoinToken(await fleet.addNode('careful'));
  const heard: string[] = [];
  const listener = createServer(async (request, response) => {
    const body = Buffer.concat(await Array.fromAsync(request)).toString();
    heard.push(`${request.method} ${request.url} ${body}`);
    const answer = await fetch(new URL(request.url ?? '/', fleet.line.ledger.url));
    response.writeHead(answer.status, { 'content-type': 'application/json' });
    response.end(await answer.text());
  });
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
  try {
    const { port } = listener.address() as AddressInfo;
    // All of it is that of the real fleet, but for whom the machine is to trust.
    const other = { ...token, genesis: 'a'.repeat(64), ledger: `http://127.0.0.1:${port}` };
    await using machine = newMachine();
    machine.start({ args: ['-'], stdin: formatJoinToken(other) });
    await machine.waitForRemark(/genesis/);
    await waitFor(() => heard.length >= 2, { what: 'another attempt' });
    expect(machine.ready).toBeUndefined();
  } finally {
    listener.close();
    listener.closeAllConnections();
  }
  expect(heard.filter((request) => !request.startsWith('GET /v1/authority'))).toEqual([]);
  expect(heard.join()).not.toContain(token.secret);
});

test('a name is the key\u2019s that has it: another neither gets a token for it nor takes it', {
  timeout: TEST_MS_MAX,
}, async () => {
  const tokens = [await fleet.addNode('wanted'), await fleet.addNode('wanted')] as const;
  await using owner = newMachine();
  const { id } = await owner.join(tokens[0]);
  await using squatter = newMachine();
  squatter.start({ args: ['-'], stdin: tokens[1] });
  await squatter.waitForRemark(new RegExp(`wanted is ${id}`));
  const refused = await fleet.hypha('node', 'add', 'wanted');
  expect(refused.stderr).toContain('E_NODE_NAME');
  expect(refused.stderr).toContain('--replaces wanted');
  expect((await listNodes()).filter(({ name }) => name === 'wanted')).toMatchObject([{ id }]);
});

test('a new key takes over name, labels and what the machine holds; the old one can do nothing more', {
  timeout: TEST_MS_MAX,
}, async () => {
  await using machine = newMachine();
  const { id: old } = await machine.join(await fleet.addNode('renewed', '--label', 'zone=mid'));
  const script = join(machine.state, 'keeps.ts');
  writeFileSync(script, VOLUME);
  await fleet.output('apply', script, '--label', 'zone=mid');
  const oldKey = machine.signer;
  const id = await machine.rekey();
  expect(await findNode(old)).toMatchObject({ state: 'revoked', replacedBy: id });
  expect(await findNode(id)).toMatchObject({
    ...{ state: 'ready', name: 'renewed', labels: { zone: 'mid' } },
  });
  const stolen = { id: old, signer: oldKey } as JoiningMachine;
  expect(await powersOf(stolen)).toEqual(NO_POWERS);
  const node = new NodeClient({ baseUrl: machine.ready?.url ?? '', signer: fleet.operator });
  expect((await node.listResources()).items).toMatchObject([
    { deployment: 'keeps', kind: 'volume', name: 'data', status: 'committed' },
  ]);
  // What holds the deployment is the machine, whatever its id: the next generation finds what is there.
  await fleet.output('apply', script);
  await fleet.output('destroy', 'keeps', '--delete-data', 'data');
  expect((await node.listResources()).items).toEqual([]);
});

test('an admin gives the place of a machine that is lost to another key', {
  timeout: TEST_MS_MAX,
}, async () => {
  await using lost = newMachine();
  const { id: old } = await lost.join(await fleet.addNode('seat', '--label', 'zone=low'));
  await lost.stop();
  await using fresh = newMachine();
  fresh.start({ args: placeFlags() });
  await fresh.waitForRemark(/no admin has admitted/);
  await fleet.output('node', 'admit', fresh.id, '--replaces', 'seat');
  expect(await fresh.waitUntilReady()).toMatchObject({ name: 'seat' });
  expect(await findNode(fresh.id)).toMatchObject({ name: 'seat', labels: { zone: 'low' } });
  await waitFor(async () => (await findNode(old))?.state === 'revoked', { what: 'the old is out' });
  expect(await findNode(old)).toMatchObject({ replacedBy: fresh.id });
  expect(await powersOf(lost)).toEqual(NO_POWERS);
});

test('a revoked node stays out: as one that waits, as one that works, and as one that comes again', {
  timeout: TEST_MS_MAX,
}, async () => {
  await using machine = newMachine();
  const { id } = await machine.join(await fleet.addNode('doomed'));
  await fleet.output('authority', 'revoke-node', 'doomed');
  await waitFor(async () => (await findNode(id))?.state === 'revoked', { what: 'the revocation' });
  expect(await powersOf(machine)).toEqual(NO_POWERS);
  await machine.stop();

  await using waiting = newMachine();
  waiting.start({ args: placeFlags() });
  await waiting.waitForRemark(/no admin has admitted/);
  await fleet.output('authority', 'revoke-node', waiting.id);
  await fleet.output('node', 'admit', waiting.id, '--name', 'late');
  await waiting.waitForRemark(/was revoked/);
  expect(waiting.ready).toBeUndefined();
  expect(await findNode(waiting.id)).toBeUndefined();
});
