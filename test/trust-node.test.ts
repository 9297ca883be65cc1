/** A ledger in the hands of an attacker, as one node meets it (G1, G7): it may be silent, and what it forges shows. */
import { readFileSync } from 'node:fs';
import type { Envelope } from '@hypha/protocol';
import { createKey, grantOf, type TestKey, TestLog, waitFor } from '@hypha/testkit';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { AttackedNode } from './fixtures/attacked-node.ts';
import type { Tamper } from './fixtures/tampering-proxy.ts';

const SEEN_MS_MAX = 60_000;
const honest: Tamper = ({ body }) => body;
const away: Tamper = () => {
  throw new Error('away');
};

let node: AttackedNode;
beforeEach(async () => {
  node = await AttackedNode.start();
});
afterEach(async () => node?.[Symbol.asyncDispose]());

/** The code with which the node refuses it; `accepted` otherwise. */
async function submit(submission: {
  readonly envelope: Envelope;
  readonly authority?: Envelope[];
  readonly checkpoint?: string;
}): Promise<string> {
  try {
    await node.api.submit(submission);
    return 'accepted';
  } catch (error) {
    return (error as { code: string }).code;
  }
}

/** Every entry that the ledger has, as a log that a test can bend. */
async function copyOfLog(): Promise<TestLog> {
  const { items } = await node.ledger.listEntries({ limit: 500 });
  return new TestLog(
    node.keys.ledgerKey,
    items.map(({ envelope }) => envelope),
  );
}

/** Makes the node read its ledger: what it is asked to do is judged by what it reads. */
async function nudge(deployment: string): Promise<string> {
  return await submit({ envelope: node.sign({ deployment }) });
}

const seconds = () => Math.floor(Date.now() / 1000);

async function grantOperator(): Promise<TestKey> {
  const key = createKey();
  await node.change({ type: 'grant', grant: grantOf(key, { name: 'otto' }) });
  return key;
}

describe('a ledger with two histories', () => {
  test('is found out by its second head of one size; both heads are kept, and people are told', async () => {
    expect(await node.doesGoodWork()).toBe(true);
    const log = await copyOfLog();
    // The same size and another last entry, signed with the ledger's own key.
    const forged = log.fork(log.size - 1);
    forged.append(node.keys.genesis);
    node.proxy.tamper = ({ path, body }) => {
      if (path === '/v1/log/checkpoint') return { checkpoint: log.checkpoint({ time: seconds() }) };
      return body;
    };
    await nudge('before');
    node.proxy.tamper = ({ path, body }) => {
      if (path !== '/v1/log/checkpoint') return body;
      return { checkpoint: forged.checkpoint({ time: seconds() + 1 }) };
    };
    await waitFor(
      async () => {
        await nudge('during');
        return node.evidence().length > 0;
      },
      { timeoutMs: SEEN_MS_MAX, what: 'evidence' },
    );
    const [path = ''] = node.evidence();
    const { kind, ours, theirs } = JSON.parse(readFileSync(path, 'utf8'));
    expect(kind).toBe('log-fork');
    const sizes = [ours, theirs].map((note: string) => note.split('\n')[1]);
    expect(sizes[0]).toBe(sizes[1]);
    expect(theirs).not.toBe(ours);
    expect(node.alarms().map(({ err }) => err?.code)).toContain('E_LOG_FORK');
    const { alarms = [] } = await node.api.facts();
    expect(alarms.join()).toMatch(/ledger contradicts itself/);
    // Honest again: nothing newer is believed, and what was fresh is fresh for as long as it is.
    node.proxy.tamper = honest;
    expect(await nudge('after')).toBe('accepted');
    expect((await node.api.facts()).alarms).toHaveLength(1);
  });

  test('is found out when it is set back to fewer entries', async () => {
    expect(await node.doesGoodWork()).toBe(true);
    const log = await copyOfLog();
    node.proxy.tamper = ({ path, body }) => {
      if (path !== '/v1/log/checkpoint') return body;
      return { checkpoint: log.checkpoint({ size: log.size - 2, time: seconds() + 5 }) };
    };
    await waitFor(
      async () => {
        await nudge('set-back');
        return node.evidence().length > 0;
      },
      { timeoutMs: SEEN_MS_MAX, what: 'evidence' },
    );
    const { alarms = [] } = await node.api.facts();
    expect(alarms.join()).toMatch(/ledger contradicts itself/);
  });
});

describe('a ledger that withholds', () => {
  test('an old head served again is refused and kept, and the node goes on with the next sound one', async () => {
    const { checkpoint: old } = await node.ledger.checkpoint();
    let proven = 0;
    node.proxy.tamper = ({ path, body }) => {
      if (path === '/v1/log/inclusion') proven++;
      return body;
    };
    expect(await node.doesGoodWork()).toBe(true);
    // Its receipt is proven under a newer head.
    await waitFor(() => proven > 0, { timeoutMs: SEEN_MS_MAX, what: 'a newer head' });
    node.proxy.tamper = ({ path, body }) =>
      path === '/v1/log/checkpoint' ? { checkpoint: old } : body;
    await waitFor(
      async () => {
        await nudge('replayed');
        return node.evidence().length > 0;
      },
      { timeoutMs: SEEN_MS_MAX, what: 'evidence' },
    );
    expect(node.evidence()[0]).toMatch(/log-rollback-/);
    node.proxy.tamper = honest;
    expect(await node.doesGoodWork()).toBe(true);
    expect((await node.api.facts()).alarms).toBeUndefined();
  });

  test('a revocation that its own head names stops all new work at once', async () => {
    const otto = await grantOperator();
    expect(await submit({ envelope: node.sign({ deployment: 'a', signers: [otto] }) })).toBe(
      'accepted',
    );
    const { seq, head } = node.authority;
    node.proxy.tamper = ({ path, body }) =>
      path === '/v1/authority' ? { items: [], head: { seq, hash: head } } : body;
    await node.change({ type: 'revoke', keyid: otto.keyid, reason: 'stolen' });
    // Signed by a thief, who names what the node knows.
    const stolen = (generation: number) =>
      node.sign({
        ...{ deployment: 'a', generation, signers: [otto] },
        payload: { authority: { seq, head } },
      });
    let generation = 1;
    await waitFor(
      async () => (await submit({ envelope: stolen(++generation) })) === 'E_STALE_VIEW',
      { timeoutMs: SEEN_MS_MAX, what: 'the node to see that something is missing' },
    );
    node.proxy.tamper = honest;
    await waitFor(
      async () => (await submit({ envelope: stolen(++generation) })) === 'E_KEY_REVOKED',
      { timeoutMs: SEEN_MS_MAX, what: 'the node to know the revocation' },
    );
    expect(await node.doesGoodWork()).toBe(true);
  });

  test('a partitioned node learns from what comes with the work, and whom it may no longer serve', async () => {
    const [otto, rita] = [await grantOperator(), await grantOperator()];
    expect(await node.doesGoodWork()).toBe(true);
    node.proxy.tamper = away;
    await node.change({ type: 'revoke', keyid: otto.keyid, reason: 'stolen' });
    const { checkpoint } = await node.ledger.checkpoint();
    const authority = [...node.authority.updates];
    const byRita = node.sign({ deployment: 'b', signers: [rita] });
    expect(await submit({ envelope: byRita })).toBe('E_STALE_VIEW');
    expect(await submit({ envelope: byRita, authority, checkpoint })).toBe('accepted');
    const byOtto = node.sign({ deployment: 'c', signers: [otto] });
    expect(await submit({ envelope: byOtto })).toBe('E_KEY_REVOKED');
    node.proxy.tamper = honest;
    await waitFor(async () => await node.doesGoodWork(), { timeoutMs: SEEN_MS_MAX, what: 'work' });
    expect(node.evidence()).toEqual([]);
  });

  test('a receipt that it took and does not prove is asked for again until it is proven', async () => {
    let asked = 0;
    node.proxy.tamper = ({ path, body }) => {
      if (path !== '/v1/log/inclusion') return body;
      asked++;
      // Its answers are well formed and prove nothing.
      return { ...(body as object), index: 0 };
    };
    expect(await node.doesGoodWork()).toBe(true);
    await waitFor(() => asked > 2, { timeoutMs: SEEN_MS_MAX, what: 'the node to ask again' });
    let proven = 0;
    node.proxy.tamper = ({ path, body }) => {
      if (path === '/v1/log/inclusion') proven++;
      return body;
    };
    await waitFor(() => proven === 1, { timeoutMs: SEEN_MS_MAX, what: 'the proof' });
    // Once there is one, nothing more is asked about it.
    expect(await node.doesGoodWork()).toBe(true);
    await waitFor(() => proven === 2, { timeoutMs: SEEN_MS_MAX, what: 'the next proof' });
  });
});
