import { type Envelope, HyphaError, LIMITS, runIdOf, toProblem } from '@hypha/protocol';
import { generateKey, nodeVerifier } from '@hypha/protocol/node';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { COORDINATOR_LIMITS } from './limits.ts';
import {
  CANCELLED,
  COMMITTED,
  digestOfEnvelope,
  type FakeNode,
  journalOf,
  STARTED,
  SUCCEEDED,
} from './testing/fake-node.ts';
import { TestFleet } from './testing/test-fleet.ts';

let fleet: TestFleet;
let node: FakeNode;
let other: FakeNode;
const colleague = generateKey().signer;
const canceller = generateKey().signer;
beforeAll(async () => {
  fleet = await TestFleet.start();
  node = await fleet.addNode('first');
  other = await fleet.addNode('second');
  await fleet.grant(colleague, 'operator', { caps: ['volume'] });
  await fleet.grant(canceller, 'operator', { caps: ['cancel'] });
});
afterAll(() => fleet.stop());

const cancel = (envelope: Envelope) => fleet.coordinator.cancel({ envelope });

async function submitted(deployment: string, nodes: readonly FakeNode[] = [node]) {
  const accepted = await fleet.submit({ deployment, nodes: nodes.map(({ id }) => id) });
  const runOn = ({ id }: FakeNode) => accepted.runs.find((run) => run.node === id)?.run ?? '';
  return { ...accepted, runOn };
}

async function isMarked(run: string): Promise<boolean> {
  return (await fleet.coordinator.run(run)).cancelRequestedAt !== undefined;
}

test('the same cancel again answers the same runs, also when it is sent many times at once', async () => {
  const { script, run } = await submitted('again');
  const { envelope, digest } = fleet.cancel(script);
  const answers = await Promise.all(Array.from({ length: 8 }, () => cancel(envelope)));
  for (const answer of answers) {
    expect(answer).toMatchObject({ cancellation: digest, runs: [{ run, node: node.id }] });
  }
  expect(answers.filter(({ existing }) => existing !== true)).toHaveLength(1);
});

test('a cancel that was accepted is answered after its exp as well, another is E_EXPIRED', async () => {
  const { script } = await submitted('late');
  const [accepted, unsent] = [1, 2].map(
    () => fleet.cancel(script, { lifetimeSeconds: 3 }).envelope,
  );
  if (accepted === undefined || unsent === undefined) throw new Error('no cancels');
  const exp = Date.now() + 3_000;
  await cancel(accepted);
  await vi.waitFor(() => expect(Date.now()).toBeGreaterThan(exp), { timeout: 10_000 });
  await expect(cancel(unsent)).rejects.toMatchObject({ code: 'E_EXPIRED' });
  expect(await cancel(accepted)).toMatchObject({ existing: true });
});

test.for([
  ['did not sign the script', colleague, 'E_SCOPE'],
  ['was never granted anything', generateKey().signer, 'E_UNKNOWN_KEY'],
] as const)('by a key that %s it is refused and changes nothing', async ([what, key, code]) => {
  const { script, run } = await submitted(`by-${code.toLowerCase().replaceAll('_', '-')}`);
  const { envelope } = fleet.cancel(script, { key });
  await expect(cancel(envelope), what).rejects.toMatchObject({ code });
  expect(await isMarked(run)).toBe(false);
});

test('an admin may cancel, and an operator who was granted the capability', async () => {
  for (const key of [fleet.admin, canceller]) {
    const { script, run } = await submitted(key === canceller ? 'by-canceller' : 'by-admin');
    await cancel(fleet.cancel(script, { key }).envelope);
    expect(await isMarked(run)).toBe(true);
  }
});

test('a key that was granted something a moment ago cancels, long before the next poll', async () => {
  const { script, run } = await submitted('by-new-key');
  const { signer } = generateKey();
  await fleet.grant(signer, 'admin');
  await cancel(fleet.cancel(script, { key: signer }).envelope);
  expect(await isMarked(run)).toBe(true);
});

test('another realm, a node that is not in the script, and a script instead of a cancel are refused', async () => {
  const { script, run } = await submitted('wrong');
  const wrongRealm = fleet.cancel(script, { realm: 'other' });
  await expect(cancel(wrongRealm.envelope)).rejects.toMatchObject({
    code: 'E_SCOPE',
    where: { path: 'realm' },
  });
  const wrongNode = fleet.cancel(script, { nodes: [other.id] });
  await expect(cancel(wrongNode.envelope)).rejects.toMatchObject({ code: 'E_AUDIENCE' });
  await expect(cancel(script.envelope)).rejects.toMatchObject({ code: 'E_PAYLOAD_TYPE' });
  expect(await isMarked(run)).toBe(false);
});

test('it ends the runs on the nodes it names, and no others', async () => {
  const { script, runOn } = await submitted('some', [node, other]);
  const answer = await cancel(fleet.cancel(script, { nodes: [other.id] }).envelope);
  expect(answer.runs).toEqual([{ run: runOn(other), node: other.id }]);
  expect([await isMarked(runOn(node)), await isMarked(runOn(other))]).toEqual([false, true]);
});

test('runs that are over stay what they are; what is left is cancelled', async () => {
  const { script, runOn } = await submitted('half', [node, other]);
  const journal = journalOf(node, runOn(node), script, STARTED, COMMITTED, SUCCEEDED);
  await node.send({ type: 'events', run: runOn(node), events: journal });
  const answer = await cancel(fleet.cancel(script).envelope);
  expect(answer.runs).toEqual([{ run: runOn(other), node: other.id }]);
  expect([await isMarked(runOn(node)), await isMarked(runOn(other))]).toEqual([false, true]);
});

test('what is cancelled already is answered as existing, what ended otherwise is E_TOO_LATE', async () => {
  const ended = async (deployment: string, ...bodies: Parameters<typeof journalOf>[3][]) => {
    const { script, run } = await submitted(deployment);
    await node.send({ type: 'events', run, events: journalOf(node, run, script, ...bodies) });
    return cancel(fleet.cancel(script).envelope);
  };
  expect(await ended('is-cancelled', CANCELLED)).toMatchObject({ existing: true, runs: [] });
  await expect(ended('is-committed', STARTED, COMMITTED)).rejects.toMatchObject({
    code: 'E_TOO_LATE',
  });
  await expect(ended('is-over', STARTED, COMMITTED, SUCCEEDED)).rejects.toMatchObject({
    code: 'E_TOO_LATE',
  });
});

test('cancelled on one node, it is kept from another that may still get it', async () => {
  const [first, second] = [await fleet.addNode('had-it'), await fleet.addNode('may-get-it')];
  const nodes = [first.id, second.id];
  const { script, runs } = await fleet.submit({ deployment: 'elsewhere', nodes, count: 1 });
  const [placed] = runs;
  const [ended, free] = placed?.node === first.id ? [first, second] : [second, first];
  const run = placed?.run ?? '';
  await ended.send({ type: 'events', run, events: journalOf(ended, run, script, CANCELLED) });
  const { envelope, digest } = fleet.cancel(script);
  expect(await cancel(envelope)).not.toHaveProperty('existing');
  await free.open();
  expect(await free.waitForCancel(digest)).toEqual(envelope);
});

test('a run that its node refused is over', async () => {
  const { script, run } = await submitted('was-refused');
  const problem = toProblem(new HyphaError('E_CAPACITY', 'no room'));
  await node.send({ type: 'refused', messageId: run, run, problem });
  await expect(cancel(fleet.cancel(script).envelope)).rejects.toMatchObject({
    code: 'E_TOO_LATE',
  });
});

test('a cancel of something unknown is not believed before its target is known', async () => {
  const own = await fleet.addNode('waiting');
  const script = fleet.script({ deployment: 'unknown', nodes: [own.id] });
  const { envelope, digest } = fleet.cancel(script, { key: colleague });
  expect(await cancel(envelope)).toMatchObject({ runs: [] });
  const { runs } = await fleet.coordinator.submit({ envelope: script.envelope });
  const run = runs[0]?.run ?? '';
  expect(await isMarked(run)).toBe(false);
  await own.open();
  // The node is told of it all the same, and judges for itself.
  expect(await own.waitForCancel(digest)).toEqual(envelope);
  expect(await own.waitForRun(run)).toEqual(script.envelope);
});

test('cancel and script at once: whichever wins, the run is marked', async () => {
  const marked = await Promise.all(
    Array.from({ length: 20 }, async (_, index) => {
      const script = fleet.script({ deployment: `at-once-${index}`, nodes: [node.id] });
      const { envelope } = fleet.cancel(script);
      const both = [fleet.coordinator.submit({ envelope: script.envelope }), cancel(envelope)];
      await Promise.all(index % 2 === 0 ? both : both.reverse());
      return await isMarked(runIdOf(nodeVerifier, digestOfEnvelope(script.envelope), node.id));
    }),
  );
  expect(marked).not.toContain(false);
});

test('the cancels of one key that are kept for one script are bounded', async () => {
  const { script } = await submitted('often');
  const max = COORDINATOR_LIMITS.cancelsPerSignerMax;
  for (let count = 0; count < max; count++) await cancel(fleet.cancel(script).envelope);
  await expect(cancel(fleet.cancel(script).envelope)).rejects.toMatchObject({ code: 'E_RATE' });
});

test('those of somebody who may not cancel leave room for who may', async () => {
  const script = fleet.script({ deployment: 'crowded', nodes: [node.id] });
  const max = COORDINATOR_LIMITS.cancelsPerSignerMax;
  for (let count = 0; count < max; count++) {
    await cancel(fleet.cancel(script, { key: colleague }).envelope);
  }
  const { runs } = await fleet.coordinator.submit({ envelope: script.envelope });
  await cancel(fleet.cancel(script).envelope);
  expect(await isMarked(runs[0]?.run ?? '')).toBe(true);
});

test('the change of a run that is to be cancelled is told to who follows everything', async () => {
  const end = new AbortController();
  const seen: string[] = [];
  const { script, run } = await submitted('told');
  const stream = fleet.coordinator.events({ lastEventId: '0', signal: end.signal });
  const reading = (async () => {
    for await (const { data } of stream) seen.push(data);
  })();
  await cancel(fleet.cancel(script).envelope);
  await vi.waitFor(() => {
    const views = seen.map((data) => JSON.parse(data)).filter((view) => view.run === run);
    expect(views.at(-1)).toMatchObject({ cancelRequestedAt: expect.any(Number) });
  });
  end.abort();
  await reading;
});

test('a body that is no submission, or too large, is a problem document', async () => {
  const post = (body: string) =>
    fetch(`${fleet.coordinatorProcess.url}/v1/cancellations`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body,
    });
  const refused = await post('{"envelope":1}');
  expect(await refused.json()).toMatchObject({ code: 'E_ENVELOPE' });
  const large = await post(JSON.stringify({ envelope: 'x'.repeat(LIMITS.submissionBytesMax) }));
  expect(await large.json()).toMatchObject({ code: 'E_SIZE' });
});
