import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  type CancelPayload,
  digestOf,
  envelopeDigest,
  fromBase64,
  fromUtf8,
  LIMITS,
  type RunView,
  runIdOf,
  Submission,
  verifyCancel,
} from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import { admitNode, createFleet, enrolmentOf, openTempDir, signedScript } from '@hypha/testkit';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { runCli } from '../testing/cli-process.ts';
import { FakeServices } from '../testing/fake-services.ts';

const TEST_MS_MAX = 60_000;

const fleet = createFleet();
const node = admitNode(fleet);
const dir = await openTempDir();
let services: FakeServices;
/** What reached the coordinator. */
let sent: Submission[];

const envelope = signedScript(fleet, { draft: { nodes: [node.id] } });
const digest = digestOf(nodeVerifier, envelope.payloadType, fromBase64(envelope.payload));
const run = runIdOf(nodeVerifier, digest, node.id);
const VIEW: RunView = {
  ...{ run, revision: 'rev_1', envelopeDigest: digest, node: node.id, realm: 'default' },
  ...{ deployment: 'web', generation: 1, mode: 'apply', state: 'running', steps: 1 },
  ...{ acceptedAt: 0, startedAt: 1, endedAt: null, problem: null, simulated: false, message: '' },
};

beforeAll(async () => {
  services = await FakeServices.start(fleet, [{ node: node.id, envelope: enrolmentOf(node) }]);
  const keyFile = join(dir.path, 'operator.pem');
  writeFileSync(keyFile, fleet.operator.pem, { mode: 0o600 });
  const context = services.context({ operator: keyFile });
  // Asked itself, the node answers what the coordinator does.
  const nodes = [{ id: node.id, name: 'alpha', url: context.coordinator }];
  writeFileSync(join(dir.path, 'context.json'), JSON.stringify({ ...context, nodes }));
});
afterAll(async () => {
  await services[Symbol.asyncDispose]();
  await dir[Symbol.asyncDispose]();
});
beforeEach(() => {
  sent = [];
  services.coordinator.view = VIEW;
  services.coordinator.onCancel = (body) => {
    const submission = Submission.parse(JSON.parse(body));
    sent.push(submission);
    const cancellation = envelopeDigest(nodeVerifier, submission.envelope, 'cancel');
    return { cancellation, target: digest, runs: [{ run, node: node.id }] };
  };
});

test(
  'what is sent is a cancel of exactly this work on its node, signed by the operator',
  async () => {
    const args = ['run', 'cancel', run, '--detach', '-o', 'json'];
    const { code, stdout } = await runCli(dir.path, ...args);
    expect({ code, answer: JSON.parse(stdout) }).toMatchObject({
      code: 0,
      answer: { target: digest },
    });
    const [submission] = sent;
    expect(sent).toHaveLength(1);
    const verified = verifyCancel(nodeVerifier, {
      envelope: submission?.envelope ?? envelope,
      authority: services.authority,
      nowSeconds: Math.floor(Date.now() / 1000),
      node: { id: node.id, realms: ['default'] },
    });
    expect(verified.keyids).toEqual([fleet.operator.keyid]);
    expect(verified.payload).toMatchObject({
      ...{ target: digest, realm: 'default', aud: { nodes: [node.id] } },
    });
  },
  TEST_MS_MAX,
);

test(
  'a coordinator that names other work gets no signature for it',
  async () => {
    services.coordinator.view = { ...VIEW, envelopeDigest: '1'.repeat(64) };
    const { code, stderr } = await runCli(dir.path, 'run', 'cancel', run, '--detach');
    expect({ code, sent }).toEqual({ code: 3, sent: [] });
    expect(stderr).toContain('E_CONFLICT');
  },
  TEST_MS_MAX,
);

test(
  'one that cannot be cancelled keeps none of the others from it, and is told at the end',
  async () => {
    const args = ['run', 'cancel', `run_${'a'.repeat(26)}`, run, '--detach', '-o', 'json'];
    const { code, stdout, stderr } = await runCli(dir.path, ...args);
    expect({ code, answer: JSON.parse(stdout), sent: sent.length }).toMatchObject({
      ...{ code: 3, sent: 1 },
      answer: { target: digest },
    });
    expect(stderr).toContain('E_CONFLICT');
  },
  TEST_MS_MAX,
);

test('who waits for the end is told that the cancel came to nothing', {
  timeout: TEST_MS_MAX,
}, async () => {
  const { code, stderr } = await runCli(dir.path, 'run', 'cancel', run);
  expect(code).toBe(69);
  expect(stderr).toContain(`the cancel of ${run} came to nothing`);
});

test('a cancel waits for a node that is away as long as it may', {
  timeout: TEST_MS_MAX,
}, async () => {
  await runCli(dir.path, 'run', 'cancel', run, '--detach');
  const payload = sent[0]?.envelope.payload ?? '';
  const { iat, exp } = JSON.parse(fromUtf8(fromBase64(payload))) as CancelPayload;
  expect(exp - iat).toBe(LIMITS.lifetimeSecondsMax);
});

test.for([
  [['run', 'cancel', 'nope'], 'not a run id'],
  [['run', 'undo', 'nope'], 'not a run id'],
  [['run', 'replay'], 'a replay takes a run, or --journal and --envelope'],
  [['exec', 'web/web/zzz', '--', 'ls'], 'not a resource: "web/web/zzz"'],
  [['exec', '-d', 'other', 'web/web', '--', 'ls'], 'web/web is not of deployment other'],
  [['logs', 'web/web/zzz', '--node-url', 'http://127.0.0.1:1'], 'not a resource'],
  [['exec', '-d', 'web', '--within', '2h', 'web', '--', 'ls'], '--within: at most 1h'],
] as const)('%j ends with 2 and says why', { timeout: TEST_MS_MAX }, async ([args, says]) => {
  const { code, stderr } = await runCli(dir.path, ...args);
  expect(code).toBe(2);
  expect(stderr).toContain(says);
});

test('a run that did not fail has nothing to undo', { timeout: TEST_MS_MAX }, async () => {
  const { code, stderr } = await runCli(dir.path, 'run', 'undo', run);
  expect(code).toBe(4);
  expect(stderr).toContain('only a run that failed or was cancelled leaves work undone');
});

test('one that was cancelled can have been signed to be kept', {
  timeout: TEST_MS_MAX,
}, async () => {
  services.coordinator.view = { ...VIEW, state: 'cancelled' };
  const args = ['run', 'undo', run, '--via', 'node', '--sign-only', '--out', '-'];
  const { code, stdout } = await runCli(dir.path, ...args);
  expect(code).toBe(0);
  expect(Submission.parse(JSON.parse(stdout)).envelope.signatures).toHaveLength(1);
});

test('runs of a node are listed by its name', { timeout: TEST_MS_MAX }, async () => {
  const list = (name: string) => runCli(dir.path, 'run', 'list', '--via', 'node', '--node', name);
  expect(await list('alpha')).toMatchObject({ code: 0 });
  expect(await list('omega')).toMatchObject({
    code: 4,
    stderr: expect.stringContaining('no address of node omega'),
  });
});
