import {
  base64,
  type Envelope,
  HyphaError,
  type ScriptDraft,
  type ScriptPayload,
  signEnvelope,
  signScript,
  utf8,
} from '@hypha/protocol';
import { generateKey } from '@hypha/protocol/node';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import type { FakeNode } from './testing/fake-node.ts';
import { SOURCE, TestFleet } from './testing/test-fleet.ts';

const GIB = 1024 ** 3;
let fleet: TestFleet;
let node: FakeNode;
beforeAll(async () => {
  // So seldom that only what a submission asks for itself can make it fresh.
  fleet = await TestFleet.start({ 'ledger-poll-ms': 600_000 });
  node = await fleet.addNode('first');
  await node.open();
});
afterAll(() => fleet.stop());

function script(deployment: string, draft: Partial<ScriptDraft> = {}) {
  return fleet.script({ deployment, nodes: [node.id], ...draft });
}

const submit = (envelope: Envelope, authority: Envelope[] = []) =>
  fleet.coordinator.submit({ envelope, authority });

/** Signs what a well-behaved signer would not. */
function signed(payload: unknown): Envelope {
  return signEnvelope('script', utf8(JSON.stringify(payload)), [fleet.operator]);
}

function changed(deployment: string, change: Partial<Record<keyof ScriptPayload, unknown>>) {
  return signed({ ...script(deployment).payload, ...change });
}

function withByteChanged({ payload, ...rest }: Envelope): Envelope {
  const bytes = Buffer.from(payload, 'base64');
  const at = bytes.indexOf('"message":"') + '"message":"'.length;
  bytes[at] = (bytes[at] ?? 0) ^ 1;
  return { ...rest, payload: base64(bytes) };
}

test('a submission is answered with its runs, which can be read at once', async () => {
  const { envelope, payload } = script('read', { message: 'because' });
  const accepted = await submit(envelope);
  expect(accepted).toEqual({
    revision: payload.id,
    runs: [{ run: expect.stringMatching(/^run_/), node: node.id }],
  });
  const [run] = accepted.runs;
  expect(await fleet.coordinator.run(run?.run ?? '')).toMatchObject({
    state: 'accepted',
    deployment: 'read',
    message: 'because',
    generation: 1,
    steps: 0,
  });
  expect(await fleet.coordinator.deployment('default', 'read')).toMatchObject({
    state: 'pending',
    revision: payload.id,
    runs: [{ run: run?.run }],
  });
});

test('the same envelope again gets the same runs, also side by side', async () => {
  const { envelope } = script('again');
  const answers = await Promise.all(Array.from({ length: 8 }, () => submit(envelope)));
  const runs = answers.map((answer) => answer.runs[0]?.run);
  expect(new Set(runs).size).toBe(1);
  expect(answers.filter(({ existing }) => existing === undefined)).toHaveLength(1);
  await vi.waitFor(() => expect(node.deliveries(runs[0] ?? '')).toBe(1));
});

test('the same envelope again gets the same runs after it expired', async () => {
  const { envelope, payload } = script('expired-again', { lifetimeSeconds: 2 });
  const first = await submit(envelope);
  await vi.waitFor(() => expect(Date.now() / 1000).toBeGreaterThan(payload.exp + 1), {
    timeout: 5_000,
  });
  expect(await submit(envelope)).toEqual({ ...first, existing: true });
});

test('a known envelope with another signature is verified, not answered', async () => {
  const { envelope } = script('resigned');
  await submit(envelope);
  const stranger = signScript(script('resigned').payload, [generateKey().signer]);
  await expect(submit({ ...envelope, signatures: stranger.signatures })).rejects.toMatchObject({
    code: 'E_UNKNOWN_KEY',
  });
  const [signature] = envelope.signatures;
  const sig = base64(Buffer.alloc(64, 1));
  await expect(
    submit({ ...envelope, signatures: [{ keyid: signature?.keyid ?? '', sig }] }),
  ).rejects.toBeInstanceOf(HyphaError);
});

test('id and nonce cannot be used again', async () => {
  const { payload } = script('spent');
  await submit(signScript(payload, [fleet.operator]));
  const fresh = script('spent', { generation: 2 }).payload;
  const replays = [
    { ...fresh, id: payload.id },
    { ...fresh, nonce: payload.nonce },
  ];
  for (const [index, path] of ['id', 'nonce'].entries()) {
    const replay = replays[index];
    if (replay === undefined) throw new Error('no replay');
    await expect(submit(signScript(replay, [fleet.operator]))).rejects.toMatchObject({
      code: 'E_REPLAY',
      where: { path },
    });
  }
  expect(await submit(signScript(fresh, [fleet.operator]))).toMatchObject({ revision: fresh.id });
});

test('generations only grow', async () => {
  await submit(script('grown', { generation: 5 }).envelope);
  await expect(submit(script('grown', { generation: 4 }).envelope)).rejects.toMatchObject({
    code: 'E_SUPERSEDED',
    where: { path: 'generation' },
    details: { admitted: { generation: 5 } },
  });
  await expect(submit(script('grown', { generation: 5 }).envelope)).rejects.toMatchObject({
    code: 'E_CONFLICT',
    hint: expect.stringContaining('above 5'),
  });
  await submit(script('grown', { generation: 9 }).envelope);
  const { items } = await fleet.coordinator.listRevisions('default', 'grown');
  expect(items.map(({ generation }) => generation)).toEqual([9, 5]);
});

test('of many revisions of one generation at once exactly one is accepted', async () => {
  const settled = await Promise.allSettled(
    Array.from({ length: 6 }, () => submit(script('raced').envelope)),
  );
  expect(settled.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
  for (const each of settled) {
    if (each.status === 'rejected') expect(each.reason).toMatchObject({ code: 'E_CONFLICT' });
  }
  expect((await fleet.coordinator.listRuns({ deployment: 'raced' })).items).toHaveLength(1);
});

test.for<[string, string, () => Envelope | Promise<Envelope>]>([
  [
    'an unknown key',
    'E_UNKNOWN_KEY',
    () => signScript(script('bad').payload, [generateKey().signer]),
  ],
  [
    'a changed byte',
    'E_SIG_INVALID',
    () => withByteChanged(script('bad', { message: 'x' }).envelope),
  ],
  ['a changed signature', 'E_SIG_FORMAT', () => ({ ...script('bad').envelope, signatures: [] })],
  ['malformed base64', 'E_ENVELOPE', () => ({ ...script('bad').envelope, payload: 'a*b=' })],
  [
    'another payload type',
    'E_PAYLOAD_TYPE',
    () => ({ ...script('bad').envelope, payloadType: 'application/vnd.hypha.cancel.v1+json' }),
  ],
  ['an unknown field', 'E_PAYLOAD', () => changed('bad', { extra: 1 } as never)],
  ['a name with a slash', 'E_PAYLOAD', () => changed('bad', { deployment: 'a/b' })],
  ['a name with a leading dash', 'E_PAYLOAD', () => changed('bad', { deployment: '-rf' })],
  [
    'a duplicate key',
    'E_PAYLOAD',
    () => {
      const text = JSON.stringify(script('bad').payload).replace('{', '{"v":1,');
      return signEnvelope('script', utf8(text), [fleet.operator]);
    },
  ],
  [
    'more nodes asked for than named',
    'E_PAYLOAD',
    () => changed('bad', { aud: { nodes: [node.id], count: 2 } }),
  ],
  [
    'a source that is not the signed digest',
    'E_DIGEST',
    () =>
      changed('bad', {
        script: { engine: 'quickjs-es2023', sha256: 'a'.repeat(64), source: SOURCE },
      }),
  ],
  [
    'an expired envelope',
    'E_EXPIRED',
    () => {
      const { payload } = script('bad');
      const before = payload.iat - 600;
      return signed({ ...payload, iat: before, nbf: before, exp: before + 300 });
    },
  ],
  ['a life of two days', 'E_LIFETIME', () => script('bad', { lifetimeSeconds: 172_800 }).envelope],
  [
    'an envelope of tomorrow',
    'E_NOT_YET',
    () => {
      const { payload } = script('bad');
      const later = payload.iat + 86_400;
      return signed({ ...payload, nbf: later, exp: later + 60 });
    },
  ],
  [
    'a view of the authority nobody has',
    'E_STALE_VIEW',
    () => script('bad', { authority: { seq: 1000, head: 'a'.repeat(64) } }).envelope,
  ],
  [
    'another authority',
    'E_LOG_FORK',
    () => script('bad', { authority: { seq: 1, head: 'a'.repeat(64) } }).envelope,
  ],
  [
    'the key of an admin',
    'E_SCOPE',
    () => fleet.script({ deployment: 'bad', nodes: [node.id] }, fleet.admin).envelope,
  ],
  [
    'a syntax error in the script',
    'E_SCRIPT_SYNTAX',
    () => script('bad', { source: 'export default async () => {\n  let = ;\n}' }).envelope,
  ],
  ...(['plan', 'task', 'destroy'] as const).map((mode): [string, string, () => Envelope] => [
    `a ${mode} that expects a plan`,
    'E_UNSUPPORTED',
    () => script('bad', { mode, expect: { [node.id]: 'b'.repeat(64) } }).envelope,
  ]),
  [
    'a node nobody knows',
    'E_NO_PLACEMENT',
    () => script('bad', { nodes: [`node_${'b'.repeat(32)}`] }).envelope,
  ],
  [
    'more than the node has',
    'E_NO_PLACEMENT',
    () =>
      script('bad', {
        limits: { resources: { milliCpus: 513_000, memoryBytes: GIB, storageBytes: GIB } },
      }).envelope,
  ],
])('%s is refused with %s and leaves nothing behind', async ([, code, envelope]) => {
  const refusal = await submit(await envelope()).then(
    () => undefined,
    (error: unknown) => error,
  );
  expect(refusal).toMatchObject({ code, hint: expect.stringMatching(/\w/) });
  expect((await fleet.coordinator.listRuns({ deployment: 'bad' })).items).toEqual([]);
  await expect(fleet.coordinator.deployment('default', 'bad')).rejects.toMatchObject({
    code: 'E_NOT_FOUND',
  });
});

test('a syntax error names its line and column', async () => {
  const source = 'export default async () => {\n  let = ;\n}';
  await expect(submit(script('syntax', { source }).envelope)).rejects.toMatchObject({
    where: { line: 2, column: expect.any(Number) },
  });
});

test.for<[string, RequestInit, number, string]>([
  ['text', { body: 'hello', headers: { 'content-type': 'text/plain' } }, 415, 'E_TYPE'],
  ['no JSON', { body: '{' }, 400, 'E_ENVELOPE'],
  ['a duplicate key', { body: '{"envelope":1,"envelope":2}' }, 400, 'E_ENVELOPE'],
  ['an unknown member', { body: '{"envelope":{},"extra":1}' }, 400, 'E_ENVELOPE'],
  ['two megabytes', { body: `"${'a'.repeat(2 * 1024 * 1024)}"` }, 413, 'E_SIZE'],
])('a body of %s is a problem document', async ([, init, status, code]) => {
  const response = await fetch(`${fleet.coordinatorProcess.url}/v1/deployments`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    ...init,
  });
  expect(response.status).toBe(status);
  expect(response.headers.get('content-type')).toContain('application/problem+json');
  expect(await response.json()).toMatchObject({ code, hint: expect.any(String) });
});

test('a key granted a moment ago is known, one revoked a second ago is refused', async () => {
  const key = generateKey().signer;
  await fleet.grant(key, 'operator', { name: 'short' });
  const { envelope } = fleet.script({ deployment: 'revoked', nodes: [node.id] }, key);
  await submit(envelope);
  const { authority } = fleet;
  await fleet.change({ type: 'revoke', keyid: key.keyid, reason: 'lost' });
  let generation = 1;
  await vi.waitFor(
    () => {
      generation++;
      const later = fleet.script(
        { deployment: 'revoked', nodes: [node.id], generation, authority },
        key,
      );
      return expect(submit(later.envelope)).rejects.toMatchObject({ code: 'E_KEY_REVOKED' });
    },
    { timeout: 3_000, interval: 100 },
  );
});

test('a key outside its realm and nodes is refused', async () => {
  const key = generateKey().signer;
  await fleet.grant(key, 'operator', { name: 'narrow', realms: ['other'] });
  await expect(
    submit(fleet.script({ deployment: 'narrow', nodes: [node.id] }, key).envelope),
  ).rejects.toMatchObject({ code: 'E_SCOPE', where: { path: 'realm' } });
});
