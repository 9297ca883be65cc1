/** A coordinator in the hands of an attacker (G1): it may delay and drop work, and that is all it can do. */
import { readFileSync } from 'node:fs';
import {
  base64,
  type Envelope,
  fromBase64,
  fromUtf8,
  type ScriptPayload,
  utf8,
} from '@hypha/protocol';
import { admitNode, createFleet, createKey, grantOf, signUpdate, TestLog } from '@hypha/testkit';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { AttackedNode } from './fixtures/attacked-node.ts';

let node: AttackedNode;
beforeAll(async () => {
  node = await AttackedNode.start();
});
afterAll(async () => node?.[Symbol.asyncDispose]());

/** The envelope over other bytes, with the signatures it had. */
function reencoded(envelope: Envelope, change: (text: string) => string): Envelope {
  const before = fromUtf8(fromBase64(envelope.payload));
  const after = change(before);
  expect(after).not.toBe(before);
  return { ...envelope, payload: base64(utf8(after)) };
}

/** What the node says to it; nothing came of it, and the node works. */
async function refusal(envelope: Envelope, more: object = {}): Promise<string> {
  const before = await node.effects();
  const answer = await node.coordinator.send({ envelope, ...more });
  expect(await node.effects()).toEqual(before);
  expect(await node.doesGoodWork()).toBe(true);
  return answer;
}

describe('what it changes is refused and has no effect', () => {
  const mode = (from: ScriptPayload['mode'], to: ScriptPayload['mode']) => (text: string) =>
    text.replace(`"mode":"${from}"`, `"mode":"${to}"`);
  const modeOf = (from: ScriptPayload['mode']) => ({ payload: { mode: from } });

  test.for([
    ['one byte of the script', {}, (text: string) => text.replace('16MiB', '17MiB')],
    ['a plan made an apply', modeOf('plan'), mode('plan', 'apply')],
    ['an apply made a plan', {}, mode('apply', 'plan')],
    ['a task made an apply', modeOf('task'), mode('task', 'apply')],
    ['the node it is for', {}, (text: string) => text.replace('"count":1', '"count":2')],
    ['the day until which it is good', {}, (text: string) => text.replace(/"exp":1/, '"exp":9')],
  ] as const)('%s', async ([name, draft, change]) => {
    const deployment = name.replaceAll(' ', '-');
    const envelope = node.sign({ deployment, ...draft });
    expect(await refusal(reencoded(envelope, change))).toBe('E_SIG_INVALID');
  });

  test('one bit of the signature', async () => {
    const envelope = node.sign({ deployment: 'signature' });
    const [signature] = envelope.signatures;
    const bytes = fromBase64(signature?.sig ?? '');
    const flipped = base64(bytes.map((byte, at) => (at === 3 ? byte ^ 1 : byte)));
    const signatures = [{ keyid: signature?.keyid ?? '', sig: flipped }];
    expect(await refusal({ ...envelope, signatures })).toBe('E_SIG_INVALID');
  });

  test('whose signature it is', async () => {
    const thief = createKey();
    const envelope = node.sign({ deployment: 'thief', signers: [thief] });
    expect(await refusal(envelope)).toBe('E_UNKNOWN_KEY');
    const { keyid } = node.keys.operator;
    const renamed = envelope.signatures.map((signature) => ({ ...signature, keyid }));
    expect(await refusal({ ...envelope, signatures: renamed })).toBe('E_SIG_INVALID');
  });

  test('the kind of envelope', async () => {
    const envelope = node.sign({ deployment: 'kind' });
    const payloadType = envelope.payloadType.replace('script', 'receipt');
    expect(await refusal({ ...envelope, payloadType })).toBe('E_PAYLOAD_TYPE');
  });
});

describe('what it sends again is done once', () => {
  test('a finished one: the answer is the run there was', async () => {
    const envelope = node.sign({ deployment: 'replayed' });
    const { run } = await node.finish(envelope);
    const journal = await node.journal(run);
    for (let time = 0; time < 3; time++) expect(await refusal(envelope)).toBe(`accepted ${run}`);
    expect(await node.journal(run)).toEqual(journal);
  });

  test('its id under another digest', async () => {
    const first = node.payload({ deployment: 'id' });
    await node.finish(node.sign({ deployment: 'id', payload: first }));
    const other = { ...node.payload({ deployment: 'id', generation: 2 }), id: first.id };
    expect(await refusal(node.sign({ deployment: 'id', payload: other }))).toBe('E_REPLAY');
  });

  test('its nonce under another digest', async () => {
    const first = node.payload({ deployment: 'nonce' });
    await node.finish(node.sign({ deployment: 'nonce', payload: first }));
    const other = { ...node.payload({ deployment: 'nonce', generation: 2 }), nonce: first.nonce };
    expect(await refusal(node.sign({ deployment: 'nonce', payload: other }))).toBe('E_REPLAY');
  });
});

describe('the order it sends in is not the order that counts', () => {
  test('an older generation after a newer one', async () => {
    const older = node.sign({ deployment: 'order', generation: 1 });
    await node.finish(node.sign({ deployment: 'order', generation: 2 }));
    expect(await refusal(older)).toBe('E_SUPERSEDED');
  });

  test('two revisions of one generation', async () => {
    await node.finish(node.sign({ deployment: 'twins' }));
    expect(await refusal(node.sign({ deployment: 'twins' }))).toBe('E_CONFLICT');
  });

  test('one that was held back until it had expired', async () => {
    const now = Math.floor(Date.now() / 1000);
    const payload = { iat: now - 900, nbf: now - 900, exp: now - 1 };
    expect(await refusal(node.sign({ deployment: 'late', payload }))).toBe('E_EXPIRED');
  });
});

test('work for another node is not this one’s', async () => {
  const other = admitNode(node.keys, { name: 'node-2' });
  const payload = { aud: { nodes: [other.id], count: 1 } };
  expect(await refusal(node.sign({ deployment: 'elsewhere', payload }))).toBe('E_AUDIENCE');
});

describe('it cannot speak for the authority', () => {
  test('a grant nobody may make, nor anything signed by whom it names', async () => {
    const thief = createKey();
    const change = { type: 'grant', grant: grantOf(thief) } as const;
    const forged = signUpdate(node.authority, change, [thief]);
    const envelope = node.sign({ deployment: 'granted', signers: [thief] });
    await node.coordinator.push({ type: 'authority', id: '0', authority: [forged] });
    expect(await refusal(envelope, { authority: [forged] })).toBe('E_UNKNOWN_KEY');
    const { run } = await node.finish(node.sign({ deployment: 'after-the-forgery' }));
    const [accepted] = await node.journal(run);
    expect(accepted?.body).toMatchObject({ authoritySeq: node.authority.seq });
  });

  test('a whole chain of another fleet', async () => {
    const other = createFleet();
    const envelope = node.sign({ deployment: 'fleet', signers: [other.operator] });
    const authority = [...other.authority.updates];
    expect(await refusal(envelope, { authority })).toBe('E_UNKNOWN_KEY');
  });

  test('an update that the roots signed for another history: both are kept, and people are told', async () => {
    const thief = createKey();
    const grants = [grantOf(thief, { name: 'rival' }), grantOf(createKey(), { name: 'real' })];
    const [rival, real] = grants.map((grant) => ({ type: 'grant', grant }) as const);
    if (rival === undefined || real === undefined) throw new Error('two grants');
    const update = signUpdate(node.authority, rival, node.keys.roots);
    await node.change(real);
    expect(await node.doesGoodWork()).toBe(true);
    const envelope = node.sign({ deployment: 'rival', signers: [thief] });
    expect(await refusal(envelope, { authority: [update] })).toBe('E_UNKNOWN_KEY');
    const kept = node.evidence().find((path) => path.includes('authority-fork'));
    expect(JSON.parse(readFileSync(kept ?? '', 'utf8'))).toMatchObject({ theirs: update });
    expect(node.alarms().map(({ err }) => err?.code)).toContain('E_LOG_FORK');
  });

  test('an update that leaves one out', async () => {
    const thief = createKey();
    const grants = [grantOf(createKey(), { name: 'one' }), grantOf(thief, { name: 'two' })];
    const [first, second] = grants.map((grant) => ({ type: 'grant', grant }) as const);
    if (first === undefined || second === undefined) throw new Error('two grants');
    const middle = signUpdate(node.authority, first, node.keys.roots);
    const last = signUpdate(node.authority.apply(middle), second, node.keys.roots);
    const envelope = node.sign({ deployment: 'gap', signers: [thief] });
    expect(await refusal(envelope, { authority: [last] })).toBe('E_UNKNOWN_KEY');
  });
});

describe('it cannot speak for the ledger', () => {
  const log = (): TestLog => new TestLog(node.keys.ledgerKey, node.authority.updates);

  test.for([
    ['signed by another key', (): string => log().checkpoint({ signer: createKey() })],
    ['of another fleet', (): string => TestLog.of(createFleet()).checkpoint()],
    ['that is none', (): string => 'nothing'],
    ['of a smaller log', (): string => log().checkpoint({ size: 2 })],
  ] as const)('a checkpoint %s changes nothing, and good work goes on', async ([, make]) => {
    const checkpoint = make();
    const before = await node.effects();
    await node.coordinator.push({ type: 'authority', id: '0', authority: [], checkpoint });
    const envelope = node.sign({ deployment: `note-${before.length}` });
    const answer = await node.coordinator.send({ envelope, checkpoint });
    expect(answer).toMatch(/^accepted run_/);
    expect(await node.ended(answer.slice('accepted '.length))).toMatchObject({
      state: 'succeeded',
    });
  });
});

test('what is no message is passed over', async () => {
  for (const data of ['{', 'null', '[]', '{"type":"submission"}', '"\\ud800"', '{"__proto__":1}'])
    node.coordinator.pushRaw(data);
  expect(await refusal({ payloadType: '', payload: '', signatures: [] })).toBe('E_PAYLOAD_TYPE');
});
