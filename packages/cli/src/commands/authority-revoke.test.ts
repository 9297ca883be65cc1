/** `hypha authority revoke --wait` when not all is well. */
import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { base64, type NodeView, runIdOf, signReceipt } from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import { admitNode, createFleet, FACTS, openTempDir } from '@hypha/testkit';
import { afterAll, afterEach, beforeEach, expect, test } from 'vitest';
import { runCli } from '../testing/cli-process.ts';
import { FakeServices } from '../testing/fake-services.ts';

const TEST_MS_MAX = 60_000;
const fleet = createFleet();
const dir = await openTempDir();
let services: FakeServices;

beforeEach(async () => {
  services = await FakeServices.start(fleet, []);
  const keys = { operator: join(dir.path, 'operator.pem'), admin: join(dir.path, 'admin.pem') };
  writeFileSync(keys.operator, fleet.operator.pem, { mode: 0o600 });
  writeFileSync(keys.admin, fleet.admin.pem, { mode: 0o600 });
  writeContext(services.context(keys));
});
afterEach(() => services[Symbol.asyncDispose]());
afterAll(() => dir[Symbol.asyncDispose]());

function writeContext(context: Record<string, unknown>): void {
  writeFileSync(join(dir.path, 'context.json'), JSON.stringify(context));
}

/** Nobody listens there. */
function takeCoordinatorAway(): void {
  const context = JSON.parse(readFileSync(join(dir.path, 'context.json'), 'utf8'));
  writeContext({ ...context, coordinator: 'http://127.0.0.1:1' });
}

function nodeView(name: string, view: Partial<NodeView>): NodeView {
  const { key, id } = admitNode(fleet, { name });
  return {
    ...{ id, name, state: 'ready', labels: {}, realms: ['*'], keyid: key.keyid },
    ...{ publicKey: base64(key.publicKey), sealKey: '', enrolledAt: 0, lastReportAt: 1 },
    ...{ bootId: 'b', uptimeMs: 0, facts: FACTS },
    free: { milliCpus: 0, memoryBytes: 0, storageBytes: 0 },
    ...view,
  };
}

const revoke = (...args: string[]) =>
  runCli(dir.path, 'authority', 'revoke', 'olivia', '--wait', '-o', 'json', ...args);

test('a coordinator that is away holds no revocation up, and is said to be', {
  timeout: TEST_MS_MAX,
}, async () => {
  takeCoordinatorAway();
  const after = fleet.authority.seq + 1;
  services.nodes = [
    nodeView('knows', { authoritySeq: after }),
    nodeView('silent', { state: 'unreachable', authoritySeq: 1, lastReportAt: 1_700_000_000_000 }),
    nodeView('gone', { state: 'revoked', authoritySeq: 1 }),
  ];
  const { code, stdout, stderr } = await revoke();
  expect({ code, stderr }).toMatchObject({
    code: 0,
    stderr: expect.stringContaining('cannot be asked now'),
  });
  expect(services.authority.findKey(fleet.operator.keyid)?.status).toBe('revoked');
  expect(JSON.parse(stdout)).toMatchObject({
    authoritySeq: after,
    complete: true,
    nodes: [
      { name: 'knows', knows: true, why: '' },
      { name: 'silent', knows: false, why: expect.stringContaining('2023-11-14T22:13:20.000Z') },
    ],
    touched: null,
  });
});

test('a node that reports and does not know ends it with 69 at the timeout', {
  timeout: TEST_MS_MAX,
}, async () => {
  services.nodes = [nodeView('behind', { authoritySeq: fleet.authority.seq })];
  const { code, stdout } = await revoke('--timeout', '1s');
  expect(code).toBe(69);
  expect(JSON.parse(stdout)).toMatchObject({
    complete: false,
    nodes: [{ name: 'behind', knows: false, why: `is at update ${fleet.authority.seq}` }],
  });
  expect(services.authority.findKey(fleet.operator.keyid)?.status).toBe('revoked');
});

test('what was revoked before is told, or waited for', { timeout: TEST_MS_MAX }, async () => {
  services.nodes = [nodeView('knows', { authoritySeq: fleet.authority.seq + 1 })];
  expect(await revoke()).toMatchObject({ code: 0 });
  const { seq } = services.authority;
  expect(await runCli(dir.path, 'authority', 'revoke', 'olivia')).toMatchObject({
    code: 3,
    stderr: expect.stringContaining(`E_CONFLICT: authority update ${seq} did that already`),
  });
  expect(await revoke()).toMatchObject({ code: 0 });
  expect(services.authority.seq).toBe(seq);
});

test('work that a coordinator keeps to itself is found by its receipts', {
  timeout: TEST_MS_MAX,
}, async () => {
  const { key, id } = admitNode(fleet);
  const receipt = (deployment: string, generation: number, mode: 'apply' | 'destroy' = 'apply') => {
    const envelopeDigest = createHash('sha256').update(`${deployment} ${generation}`).digest('hex');
    return signReceipt(
      {
        ...{ v: 1, run: runIdOf(nodeVerifier, envelopeDigest, id), envelopeDigest, node: id },
        ...{ realm: 'default', deployment, generation, mode, state: 'succeeded' },
        ...{ startedAt: 1, endedAt: 2, steps: 0, journalHead: '0'.repeat(64), undone: 0 },
        ...{ leftovers: [], prev: null, seq: 1, authoritySeq: 0 },
      },
      key,
    );
  };
  services.receipts = [
    receipt('hidden', 1),
    receipt('hidden', 2),
    receipt('gone', 1),
    receipt('gone', 2, 'destroy'),
  ];
  const { code, stdout } = await revoke();
  expect(code).toBe(0);
  expect(JSON.parse(stdout)).toMatchObject({
    touched: [],
    unshown: [{ deployment: 'default/hidden', generation: 2, node: id }],
  });
});
