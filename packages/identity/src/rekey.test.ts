import { existsSync } from 'node:fs';
import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { nodeIdOf } from '@hypha/protocol';
import { nodeVerifier, signerFromPem, writePrivateFile } from '@hypha/protocol/node';
import {
  admitNode,
  createFleet,
  createKey,
  FACTS,
  joinTokenOf,
  openTempDir,
  TestLog,
  type TestNode,
} from '@hypha/testkit';
import { describe, expect, test } from 'vitest';
import { ImpatientClock } from '../test/impatient-clock.ts';
import { MemoryLedger } from '../test/memory-ledger.ts';
import { joinFleet } from './enrolment.ts';
import { findMembership, saveMembership } from './membership.ts';
import { openNodeKeys } from './node-keys.ts';
import { type RekeyDeps, rekey } from './rekey.ts';

const never = new AbortController().signal;
const fleet = createFleet();

/** A node that has joined, with a key beside its own that waits. */
async function setUp(folder: string) {
  const ledger = new MemoryLedger(fleet.authority, fleet.ledgerKey);
  const keys = await openNodeKeys(folder, Date.now);
  const admitted = admitNode(fleet, { labels: { zone: 'a' } });
  const node: TestNode = { ...admitted, key: { ...keys.signer, pem: '' }, id: keys.nodeId };
  const shared = {
    ...{ folder, keys, verifier: nodeVerifier, clock: new ImpatientClock() },
    facts: async () => FACTS,
    boot: { bootId: 'boot', uptimeMs: () => 1 },
    connect: () => ledger,
  };
  const urls = { ledger: 'http://ledger.test:1', coordinator: 'http://coordinator.test:2' };
  const ignore = () => undefined;
  const joinDeps = { onFailure: ignore, onAuthorityFailure: ignore };
  await joinFleet({ ...shared, ...joinDeps, joinToken: joinTokenOf(fleet, node, urls) }, never);
  const next = createKey();
  await writePrivateFile(join(folder, 'identity.next.pem'), next.pem);
  const deps: RekeyDeps = shared;
  return { ledger, deps, old: keys.nodeId, next: nodeIdOf(nodeVerifier, next.publicKey) };
}

/** Who the node is once its keys are opened, which settles a change of them. */
const idOnceOpened = async (folder: string) => (await openNodeKeys(folder, Date.now)).nodeId;

const idOnDisk = async (folder: string) =>
  nodeIdOf(
    nodeVerifier,
    signerFromPem(await readFile(join(folder, 'identity.pem'), 'utf8')).publicKey,
  );

describe('a new node key', () => {
  test('has the place of the old one once the log proves it, and is the identity from then on', async () => {
    await using folder = await openTempDir();
    const { deps, ledger, old, next } = await setUp(folder.path);
    const before = await findMembership(folder.path);
    expect(await rekey(deps, never)).toBe(next);
    expect(ledger.nodes.get(old)).toMatchObject({ state: 'revoked', replacedBy: next });
    expect(await findMembership(folder.path)).toMatchObject({
      ...{ node: next, origin: old, name: before?.name, labels: { zone: 'a' } },
    });
    const keys = await openNodeKeys(folder.path, Date.now);
    expect(keys).toMatchObject({ nodeId: next, origin: old });
    expect(keys.sealKeys.current).toEqual(deps.keys.sealKeys.current);
    expect(await idOnDisk(folder.path)).toBe(next);
    expect(existsSync(join(folder.path, 'identity.next.pem'))).toBe(false);
  });

  test('after another one still knows the first', async () => {
    await using folder = await openTempDir();
    const { deps, ledger, old, next } = await setUp(folder.path);
    await rekey(deps, never);
    const keys = await openNodeKeys(folder.path, Date.now);
    const third = createKey();
    await writePrivateFile(join(folder.path, 'identity.next.pem'), third.pem);
    const last = await rekey({ ...deps, keys }, never);
    expect(last).toBe(nodeIdOf(nodeVerifier, third.publicKey));
    expect(ledger.nodes.get(next)?.replacedBy).toBe(last);
    expect(await openNodeKeys(folder.path, Date.now)).toMatchObject({ nodeId: last, origin: old });
  });

  test('whose answer was lost is taken when it is asked for again', async () => {
    await using folder = await openTempDir();
    const { deps, ledger, next } = await setUp(folder.path);
    ledger.losesNextEnrolment = true;
    await expect(rekey(deps, never)).rejects.toMatchObject({ code: 'E_UNAVAILABLE' });
    expect(await idOnDisk(folder.path)).toBe(deps.keys.nodeId);
    expect(await idOnceOpened(folder.path)).toBe(deps.keys.nodeId);
    expect(await rekey(deps, never)).toBe(next);
    expect(await idOnceOpened(folder.path)).toBe(next);
  });

  test('is the identity also after a crash before the files were changed', async () => {
    await using folder = await openTempDir();
    const { deps, next } = await setUp(folder.path);
    // As far as this goes without opening the keys again: the membership is written, both keys are there.
    await rekey(deps, never);
    expect(await idOnDisk(folder.path)).toBe(deps.keys.nodeId);
    expect(await idOnceOpened(folder.path)).toBe(next);
    expect(await idOnceOpened(folder.path)).toBe(next);
  });

  test('is not believed when the ledger cannot prove that it is in the log', async () => {
    await using folder = await openTempDir();
    const { deps, ledger, old } = await setUp(folder.path);
    const { log } = ledger;
    ledger.log = new TestLog(createKey(), fleet.authority.updates);
    await expect(rekey(deps, never)).rejects.toMatchObject({ code: 'E_CHECKPOINT' });
    // Another history of the same length, signed by the right key.
    const other = log.fork(log.size);
    other.append(admitNode(fleet, { name: 'other' }).admission);
    ledger.log = other;
    await expect(rekey(deps, never)).rejects.toMatchObject({ code: 'E_PROOF' });
    expect(await idOnceOpened(folder.path)).toBe(old);
    expect((await findMembership(folder.path))?.node).toBe(old);
  });

  test('is refused when the ledger refuses the old one, and nothing changes', async () => {
    await using folder = await openTempDir();
    const { deps, ledger, old } = await setUp(folder.path);
    const record = ledger.nodes.get(old);
    if (record === undefined) throw new Error('the node has not joined');
    ledger.nodes.set(old, { ...record, state: 'revoked' });
    await expect(rekey(deps, never)).rejects.toMatchObject({ code: 'E_KEY_REVOKED' });
    expect(await idOnDisk(folder.path)).toBe(old);
    expect(existsSync(join(folder.path, 'identity.next.pem'))).toBe(true);
  });

  test('has the place by the admission that the log has, whatever the node was given since', async () => {
    await using folder = await openTempDir();
    const { deps, next } = await setUp(folder.path);
    const membership = await findMembership(folder.path);
    if (membership === undefined) throw new Error('the node has not joined');
    const { admission } = admitNode(fleet, { labels: { zone: 'a' } });
    await saveMembership(folder.path, { ...membership, admission });
    const ledger = deps.connect('');
    const enrol = ledger.enrol.bind(ledger);
    const offered: unknown[] = [];
    ledger.enrol = (envelope) => {
      offered.push(JSON.parse(Buffer.from(envelope.payload, 'base64').toString()).admission);
      return enrol(envelope);
    };
    expect(await rekey(deps, never)).toBe(next);
    expect(offered).toEqual([membership.admission]);
  });

  test('that cannot be read is for a person to look at, and keeps no node from its work', async () => {
    await using folder = await openTempDir();
    const { deps, old } = await setUp(folder.path);
    await writePrivateFile(join(folder.path, 'identity.next.pem'), 'garbage');
    await expect(rekey(deps, never)).rejects.toMatchObject({ code: 'E_CONFLICT' });
    expect(await idOnceOpened(folder.path)).toBe(old);
  });

  test('without a membership replaces nothing', async () => {
    await using folder = await openTempDir();
    const { deps } = await setUp(folder.path);
    await rm(join(folder.path, 'membership.json'));
    await expect(rekey(deps, never)).rejects.toMatchObject({ code: 'E_CONFLICT' });
    expect(await idOnceOpened(folder.path)).toBe(deps.keys.nodeId);
  });
});
