/** What becomes of work whose key is taken back (G1), with every part a real process. */
import { base64 } from '@hypha/protocol';
import { expect, test } from 'vitest';
import { type NodeFixture, nodeOfAllTests, until } from './testing/node-fixture.ts';

const fixture = await nodeOfAllTests();

const LONG = {
  wallMs: 7_200_000,
  resources: { milliCpus: 0, memoryBytes: 0, storageBytes: 10 },
};
const ALARM = '"msg":"run stopped"';
const revoke = (keyid: string) => ({ type: 'revoke', keyid, reason: 'stolen' }) as const;

/** Ten steps, the third of which waits. */
async function submitHeld(name: string, signer: Awaited<ReturnType<NodeFixture['addOperator']>>) {
  const names = Array.from({ length: 10 }, (_, index) => `${name}-${index + 1}`);
  await fixture.sals.hold(`${name}-3`);
  const body = names.map((each) => `await container('${each}', {});`).join('\n');
  const run = await fixture.submit(fixture.sign(body, { deployment: name }, signer));
  await fixture.untilHeld(`${name}-3`);
  return run;
}

test('a running run of a revoked key gets no further step and is undone', async () => {
  const otto = await fixture.addOperator();
  const run = await submitHeld('running', otto);
  await fixture.change(revoke(otto.keyid));
  await until('the node acts on it', () => fixture.supervisor.log.includes(ALARM));
  const seen = (await fixture.bodiesOf(run)).filter(({ type }) => type === 'step-intent');
  await fixture.sals.letGoAll();
  expect(await fixture.waitForEnd(run)).toMatchObject({
    state: 'failed',
    problem: { code: 'E_KEY_REVOKED' },
  });
  const bodies = await fixture.bodiesOf(run);
  expect(bodies.filter(({ type }) => type === 'step-intent')).toEqual(seen);
  expect(seen).toHaveLength(3);
  expect(bodies.filter(({ type }) => type === 'undo-result')).toHaveLength(3);
  expect(fixture.sals.things().filter((name) => name.startsWith('running-'))).toEqual([]);
  expect(await fixture.receiptOf(run)).toMatchObject({
    ...{ state: 'failed', code: 'E_KEY_REVOKED', undone: 3, leftovers: [] },
    authoritySeq: fixture.authority.seq,
  });
});

test('a queued run of a revoked key is rejected while the one before it still works', async () => {
  const otto = await fixture.addOperator();
  const held = await submitHeld('queued', fixture.operator);
  const waiting = await fixture.submit(
    fixture.sign(`await container('never', {});`, { deployment: 'queued' }, otto),
  );
  await fixture.change(revoke(otto.keyid));
  expect(await fixture.waitForEnd(waiting)).toMatchObject({
    state: 'rejected',
    problem: { code: 'E_KEY_REVOKED' },
  });
  expect((await fixture.api.run(held)).state).toBe('running');
  expect(await fixture.receiptOf(waiting)).toMatchObject({
    state: 'rejected',
    code: 'E_KEY_REVOKED',
  });
  await fixture.sals.letGoAll();
  expect(await fixture.waitForEnd(held)).toMatchObject({ state: 'succeeded' });
  expect(fixture.sals.things()).not.toContain('never');
});

test('a grant that no longer covers a run stops it as well, and what was committed stays', async () => {
  const otto = await fixture.addOperator();
  const done = await fixture.submit(
    fixture.sign(`await container('stays', {});`, { deployment: 'done' }, otto),
  );
  expect(await fixture.waitForEnd(done)).toMatchObject({ state: 'succeeded' });
  const run = await submitHeld('narrow', otto);
  await fixture.change({
    type: 'grant',
    grant: {
      ...{ name: 'otto', role: 'operator', realms: ['*'], caps: ['volume'], nodes: ['*'] },
      ...{ limits: null, publicKey: base64(otto.publicKey) },
      notBefore: 0,
      notAfter: Math.floor(Date.now() / 1000) + 3600,
    },
  });
  expect(await fixture.waitForEnd(run)).toMatchObject({
    state: 'failed',
    problem: { code: 'E_SCOPE' },
  });
  expect(fixture.sals.things()).toContain('stays');
});

test('a revocation that came while the supervisor was away stops the run when it is back', async () => {
  const otto = await fixture.addOperator();
  const run = await submitHeld('away', otto);
  await fixture.supervisor.kill('SIGKILL');
  await fixture.change(revoke(otto.keyid));
  await fixture.startSupervisor();
  await until('the node acts on it', () => fixture.supervisor.log.includes(ALARM));
  await fixture.sals.letGoAll();
  expect(await fixture.waitForEnd(run)).toMatchObject({
    state: 'failed',
    problem: { code: 'E_KEY_REVOKED' },
  });
  const steps = (await fixture.bodiesOf(run)).filter(({ type }) => type === 'step-intent');
  expect(steps).toHaveLength(3);
});

test('a run that waits is undone at once when its key is revoked', async () => {
  const otto = await fixture.addOperator();
  const body = `await container('waits', {}); await sleep('1h');`;
  const run = await fixture.submit(fixture.sign(body, { deployment: 'waits', limits: LONG }, otto));
  await until('it waits', async () => (await fixture.api.run(run)).waitingUntil !== undefined);
  await fixture.change(revoke(otto.keyid));
  expect(await fixture.waitForEnd(run)).toMatchObject({
    state: 'failed',
    problem: { code: 'E_KEY_REVOKED' },
  });
  expect(fixture.sals.things()).not.toContain('waits');
});
