/** A key that is taken back while its work runs and waits (design §8): what it began is undone, nothing more begins. */
import { type Envelope, isHyphaError } from '@hypha/protocol';
import { createKey, grantOf, type TestKey, waitFor } from '@hypha/testkit';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { AttackedNode } from './fixtures/attacked-node.ts';

const STATE_MS_MAX = 30_000;
/** Long enough to be taken back in the middle of it. */
const LONG = `import { volume } from 'hypha';
export default async function deploy() {
  for (let i = 0; i < 500; i++) await volume('data-' + i, { size: '1MiB' });
}
`;

let node: AttackedNode;
beforeAll(async () => {
  node = await AttackedNode.start();
});
afterAll(async () => node?.[Symbol.asyncDispose]());

async function grantOperator(name: string): Promise<TestKey> {
  const key = createKey();
  await node.change({ type: 'grant', grant: grantOf(key, { name }) });
  return key;
}

async function submit(envelope: Envelope): Promise<string> {
  const authority = [...node.authority.updates];
  const { runs } = await node.api.submit({ envelope, authority });
  return runs[0]?.run ?? '';
}

test('a revoked key: its running run is undone, its queued one is rejected, it signs nothing more', async () => {
  const mallory = await grantOperator('mallory');
  const signers = [mallory];
  const running = await submit(node.sign({ deployment: 'running', source: LONG, signers }));
  await waitFor(async () => (await node.api.run(running)).steps > 5, {
    timeoutMs: STATE_MS_MAX,
    what: 'it to be in the middle of its work',
  });
  // One behind it in its own deployment, and one of somebody else.
  const behind = await submit(node.sign({ deployment: 'running', generation: 2, signers }));
  const innocent = await submit(node.sign({ deployment: 'innocent' }));
  const unused = node.sign({ deployment: 'later', signers });

  await node.change({ type: 'revoke', keyid: mallory.keyid, reason: 'stolen' });
  // A hostile coordinator need not pass it on: anybody may bring it.
  const good = await submit(node.sign({ deployment: 'messenger' }));

  const stopped = await node.ended(running);
  expect(stopped).toMatchObject({ problem: { code: 'E_KEY_REVOKED' } });
  expect(['failed', 'rejected']).toContain(stopped.state);
  expect(await node.ended(behind)).toMatchObject({
    state: 'rejected',
    steps: 0,
    startedAt: null,
    problem: { code: 'E_KEY_REVOKED' },
  });

  const journal = await node.journal(running);
  const done = journal.filter(({ body }) => body.type === 'step-result').length;
  const undone = journal.filter(({ body }) => body.type === 'undo-result').length;
  expect(done).toBeGreaterThan(5);
  expect(done).toBeLessThan(500);
  expect(undone).toBeGreaterThanOrEqual(done);
  expect(journal.some(({ body }) => body.type === 'committed')).toBe(false);
  for (const run of [innocent, good])
    expect(await node.ended(run)).toMatchObject({ state: 'succeeded' });
  const { items } = await node.api.listResources({ limit: 500 });
  expect(items.map(({ deployment }) => deployment).sort()).toEqual(['innocent', 'messenger']);

  await expect(submit(unused)).rejects.toSatisfy((error) => isHyphaError(error, 'E_KEY_REVOKED'));
  expect(node.alarms().map(({ msg }) => msg)).toEqual(
    expect.arrayContaining(['run stopped', 'queued run rejected']),
  );
  expect(await node.doesGoodWork()).toBe(true);

  // What became of its work is told and provable all the same.
  for (const run of [running, behind])
    await waitFor(
      async () => (await node.ledger.listEntries({ kind: 'receipt', run })).items.length === 1,
      { timeoutMs: STATE_MS_MAX, what: `the receipt of ${run}` },
    );
});

test('work that has ended before its key was taken back stays', async () => {
  const rita = await grantOperator('rita');
  const run = await submit(node.sign({ deployment: 'kept', signers: [rita] }));
  expect(await node.ended(run)).toMatchObject({ state: 'succeeded' });
  await node.change({ type: 'revoke', keyid: rita.keyid, reason: 'left' });
  await node.ended(await submit(node.sign({ deployment: 'messenger', generation: 2 })));
  const { items } = await node.api.listResources({ deployment: 'kept' });
  expect(items).toMatchObject([{ status: 'committed', createdBy: run }]);
  const again = node.sign({ deployment: 'kept', generation: 2, signers: [rita] });
  await expect(submit(again)).rejects.toSatisfy((error) => isHyphaError(error, 'E_KEY_REVOKED'));
});
