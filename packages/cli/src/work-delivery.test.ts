/** A coordinator that claims what is not so: the command line says succeeded only when the node's receipt does. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  digestOf,
  type Envelope,
  fromBase64,
  type JournalBody,
  type PayloadInput,
  type ReceiptPayload,
  runIdOf,
  type Signer,
  signReceipt,
} from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import {
  admitNode,
  createFleet,
  createKey,
  enrolmentOf,
  openTempDir,
  signedScript,
  type TestNode,
} from '@hypha/testkit';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { runCli } from './testing/cli-process.ts';
import { FakeServices, hashOf, journalOf } from './testing/fake-services.ts';

const TEST_MS_MAX = 60_000;
const OUTPUT = '{"ok":true}';

const fleet = createFleet();
const node = admitNode(fleet);
/** As the coordinator would like to have one: no admin knows it. */
const invented: TestNode = { ...admitNode({ admin: createKey() }), name: 'invented' };
const enrolments = [
  { node: node.id, envelope: enrolmentOf(node) },
  { node: invented.id, envelope: enrolmentOf(invented) },
];
const dir = await openTempDir();
let services: FakeServices;

beforeAll(async () => {
  services = await FakeServices.start(fleet, enrolments);
  const keyFile = join(dir.path, 'operator.pem');
  writeFileSync(keyFile, fleet.operator.pem, { mode: 0o600 });
  writeFileSync(
    join(dir.path, 'context.json'),
    JSON.stringify(services.context({ operator: keyFile })),
  );
});
afterAll(async () => {
  await services[Symbol.asyncDispose]();
  await dir[Symbol.asyncDispose]();
});

const work = workFor(node);

function workFor({ id }: TestNode) {
  const envelope = signedScript(fleet, { draft: { nodes: [id] } });
  const digest = digestOf(nodeVerifier, envelope.payloadType, fromBase64(envelope.payload));
  return { envelope, digest, node: id, run: runIdOf(nodeVerifier, digest, id) };
}
type Work = ReturnType<typeof workFor>;

function journal({ digest, node: id, run }: Work, output = OUTPUT) {
  const bodies: JournalBody[] = [
    {
      ...{
        type: 'accepted',
        envelopeDigest: digest,
        node: id,
        realm: 'default',
        deployment: 'web',
      },
      ...{ generation: 1, mode: 'apply', keyids: [fleet.operator.keyid], authoritySeq: 3 },
    },
    { type: 'started', runner: 'r1', bootId: 'b1', abi: '1', nowMs: 0 },
    { type: 'committed', output, outputSha256: hashOf(output), desired: [] },
    { type: 'finished', state: 'succeeded', problem: null, undone: 0, leftovers: [] },
  ];
  return journalOf(run, bodies);
}

function receipt(of: Work, signer: Signer, overrides: Partial<ReceiptPayload> = {}): Envelope {
  const payload: PayloadInput<'receipt'> = {
    ...{ v: 1, run: of.run, envelopeDigest: of.digest, node: of.node, realm: 'default' },
    ...{ deployment: 'web', generation: 1, mode: 'apply', state: 'succeeded' },
    ...{ startedAt: 1, endedAt: 2, steps: 0, undone: 0, leftovers: [], prev: null, seq: 1 },
    ...{ authoritySeq: 3, outputSha256: hashOf(OUTPUT) },
    journalHead: journal(of).at(-1)?.hash ?? '',
    ...overrides,
  };
  return signReceipt(payload, signer);
}

/** What an honest coordinator would answer about this work. */
function tell(of: Work): void {
  const { coordinator } = services;
  coordinator.accepted = { revision: 'rev_1', runs: [{ run: of.run, node: of.node }] };
  coordinator.events = journal(of);
  coordinator.receipt = receipt(of, node.key);
  coordinator.view = {
    ...{ run: of.run, revision: 'rev_1', envelopeDigest: of.digest, node: of.node },
    ...{ realm: 'default', deployment: 'web', generation: 1, mode: 'apply', state: 'succeeded' },
    ...{ steps: 0, acceptedAt: 0, startedAt: 1, endedAt: 2, problem: null, simulated: false },
    message: '',
  };
}

async function submit(of: Work = work, ...args: readonly string[]) {
  writeFileSync(join(dir.path, 'work.json'), JSON.stringify(of.envelope));
  return await runCli(dir.path, 'submit', 'work.json', ...args);
}

beforeEach(() => tell(work));

test('what the node itself attests has succeeded', { timeout: TEST_MS_MAX }, async () => {
  const { code, stdout, stderr } = await submit(work, '-o', 'json');
  expect({ code, stderr }).toEqual({ code: 0, stderr: expect.stringContaining('succeeded') });
  expect(JSON.parse(stdout)).toMatchObject({ state: 'succeeded', output: { ok: true } });
});

const lies: readonly (readonly [string, () => void, string])[] = [
  [
    'a receipt by a key of its own',
    () => {
      services.coordinator.receipt = receipt(work, createKey());
    },
    'E_UNKNOWN_KEY',
  ],
  [
    "another run's receipt by the same node",
    () => {
      services.coordinator.receipt = receipt(workFor(node), node.key);
    },
    'E_CONFLICT',
  ],
  [
    'success of a run that failed',
    () => {
      services.coordinator.receipt = receipt(work, node.key, { state: 'failed' });
    },
    'E_CONFLICT',
  ],
  [
    'another output',
    () => {
      services.coordinator.events = journal(work, '{"ok":false}');
    },
    'E_CONFLICT',
  ],
  [
    'other events',
    () => {
      const [first, ...rest] = journal(work);
      services.coordinator.events = first === undefined ? [] : [first, ...rest.slice(1)];
    },
    'E_CONFLICT',
  ],
  [
    'runs of other work, which did succeed',
    () => tell(workFor(node)),
    'E_CONFLICT: the answer is not about the envelope',
  ],
  [
    'fewer runs than were asked for',
    () => {
      services.coordinator.accepted = { revision: 'rev_1', runs: [] };
    },
    'E_CONFLICT: the answer is not about the envelope',
  ],
];

test.for(lies)(
  'a coordinator that claims %s is not believed',
  { timeout: TEST_MS_MAX },
  async ([, lie, says]) => {
    lie();
    const { code, stdout, stderr } = await submit();
    expect({ code, stderr }).toEqual({ code: 3, stderr: expect.stringContaining(says) });
    expect(stdout).not.toContain('succeeded');
  },
);

const returns: readonly (readonly [string, () => void, number, string])[] = [
  ['what the node attests', () => undefined, 0, 'succeeded'],
  [
    'a receipt by a key of its own',
    () => {
      services.coordinator.receipt = receipt(work, createKey());
    },
    3,
    'E_UNKNOWN_KEY',
  ],
  ['another run under this id', () => tell(workFor(node)), 3, 'E_CONFLICT'],
];

test.for(returns)(
  'whoever comes back to a run and is told %s sees that',
  { timeout: TEST_MS_MAX },
  async ([, lie, code, says]) => {
    lie();
    const outcome = await runCli(dir.path, 'run', 'events', work.run);
    expect(outcome.code).toBe(code);
    expect(outcome.stdout + outcome.stderr).toContain(says);
    expect(outcome.stdout.includes('succeeded')).toBe(code === 0);
  },
);

test('a node that no admin let in proves nothing', { timeout: TEST_MS_MAX }, async () => {
  const lured = workFor(invented);
  tell(lured);
  services.coordinator.receipt = receipt(lured, invented.key);
  const { code, stdout, stderr } = await submit(lured);
  expect({ code, stderr }).toEqual({ code: 3, stderr: expect.stringContaining('E_UNKNOWN_KEY') });
  expect(stdout).not.toContain('succeeded');
});

test.for([
  [
    'accepts and then says nothing',
    () => {
      services.coordinator.events = [];
    },
  ],
  [
    'claims success and shows no receipt',
    () => {
      services.coordinator.receipt = undefined;
    },
  ],
] as const)(
  'a coordinator that %s ends with 69 at the deadline',
  { timeout: TEST_MS_MAX },
  async ([, withhold]) => {
    withhold();
    const { code, stdout, stderr } = await submit(work, '--timeout', '1s');
    expect({ code, stderr }).toEqual({
      code: 69,
      stderr: expect.stringMatching(
        /E_UNAVAILABLE: no receipt by \S+: the coordinator accepted it and nothing came back/,
      ),
    });
    expect(stdout).not.toContain('succeeded');
  },
);
