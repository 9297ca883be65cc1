/**
 * A ledger in the hands of an attacker who adds to what it serves; what it withholds, replays or contradicts is in
 * trust-node. It may add nothing to the authority, and what was accepted goes on.
 */
import type { AuthorityPage } from '@hypha/protocol';
import { createFleet, createKey, grantOf, signUpdate, waitFor } from '@hypha/testkit';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { AttackedNode } from './fixtures/attacked-node.ts';
import type { Tamper } from './fixtures/tampering-proxy.ts';

const SEEN_MS_MAX = 30_000;
const LONG = `import { volume } from 'hypha';
export default async function deploy() {
  for (let i = 0; i < 60; i++) await volume('data-' + i, { size: '1MiB' });
  return 'whole';
}
`;
const honest: Tamper = ({ body }) => body;

let node: AttackedNode;
beforeAll(async () => {
  node = await AttackedNode.start();
});
afterEach(() => {
  node.proxy.tamper = honest;
});
afterAll(async () => node?.[Symbol.asyncDispose]());

const thief = createKey();
const grant = { type: 'grant', grant: grantOf(thief, { name: 'thief' }) } as const;

/** Serves these updates behind those there are; `seen` says that the node has asked. */
function addUpdates(make: () => AuthorityPage['items']): { readonly seen: () => boolean } {
  let asked = 0;
  node.proxy.tamper = ({ path, body }) => {
    if (path !== '/v1/authority') return body;
    asked++;
    const page = body as AuthorityPage; // what this route answers
    return { ...page, items: [...page.items, ...make()] };
  };
  return { seen: () => asked > 0 };
}

/** What the thief signs is refused however often the node reads its ledger, and nothing comes of it. */
async function expectRefused(deployment: string, seen: () => boolean): Promise<void> {
  const before = await node.effects();
  const envelope = node.sign({ deployment, signers: [thief] });
  await waitFor(
    async () => {
      expect(await node.coordinator.send({ envelope })).toBe('E_UNKNOWN_KEY');
      return seen();
    },
    { timeoutMs: SEEN_MS_MAX, what: 'the node to read what the ledger forged' },
  );
  expect(await node.coordinator.send({ envelope })).toBe('E_UNKNOWN_KEY');
  expect(await node.effects()).toEqual(before);
  node.proxy.tamper = honest;
  expect(await node.doesGoodWork()).toBe(true);
}

test('a grant that the ledger signed itself lets nobody in', async () => {
  const { seen } = addUpdates(() => [signUpdate(node.authority, grant, [node.keys.ledgerKey])]);
  await expectRefused('by-ledger', seen);
});

test('a grant that whom it names has signed lets nobody in', async () => {
  const { seen } = addUpdates(() => [signUpdate(node.authority, grant, [thief])]);
  await expectRefused('by-thief', seen);
});

test('a grant of another fleet lets nobody in', async () => {
  const other = createFleet();
  const { seen } = addUpdates(() => [signUpdate(other.authority, grant, other.roots)]);
  await expectRefused('by-stranger', seen);
});

test('answers that are none change nothing', async () => {
  let asked = 0;
  node.proxy.tamper = ({ path }) => {
    if (path.startsWith('/v1/log') || path === '/v1/authority') asked++;
    return { items: 'nonsense', checkpoint: 7, head: null };
  };
  await expectRefused('by-nonsense', () => asked > 0);
});

test('what was accepted goes on while the ledger lies, and its receipt arrives when it stops', async () => {
  const { runs } = await node.api.submit({
    envelope: node.sign({ deployment: 'long', source: LONG }),
  });
  const run = runs[0]?.run ?? '';
  node.proxy.tamper = () => ({});
  expect(await node.ended(run)).toMatchObject({ state: 'succeeded', steps: 60 });
  expect((await node.api.output(run)).output).toBe('whole');
  node.proxy.tamper = honest;
  await waitFor(
    async () => (await node.ledger.listEntries({ kind: 'receipt', run })).items.length === 1,
    { timeoutMs: SEEN_MS_MAX, what: 'the receipt in the ledger' },
  );
  expect(await node.doesGoodWork()).toBe(true);
});
