import { base64, fromBase64 } from '@hypha/protocol';
import { admitNode, createFleet, createKey, enrolmentOf, FACTS } from '@hypha/testkit';
import { describe, expect, test } from 'vitest';
import { MemoryLedger } from '../test/memory-ledger.ts';
import { SealKeyPublisher, type SealKeyPublisherDeps } from './seal-key-publisher.ts';

const never = new AbortController().signal;
const fleet = createFleet();

async function setUp() {
  const ledger = new MemoryLedger(fleet.authority);
  const node = admitNode(fleet);
  const { challenge } = await ledger.challenge();
  const record = await ledger.enrol(enrolmentOf(node, challenge));
  const noted: Uint8Array[] = [];
  const sealKeys = {
    current: fromBase64(record.sealKey),
    publishedAtMs: 1 as number | null,
    notePublished: async (key: Uint8Array) => {
      noted.push(key);
      sealKeys.publishedAtMs = 1;
    },
  };
  const deps: SealKeyPublisherDeps = {
    keys: { nodeId: node.id, signer: node.key, sealKeys },
    ledger,
    facts: async () => FACTS,
    boot: { bootId: 'boot' },
    clock: { nowMs: Date.now },
  };
  const sealKeyAt = () => ledger.nodes.get(node.id)?.sealKey;
  const rotate = () => {
    sealKeys.current = createKey().publicKey;
    sealKeys.publishedAtMs = null;
  };
  return { deps, ledger, noted, sealKeys, sealKeyAt, rotate };
}

describe('the sealing key in the log', () => {
  test('is compared once, and left alone while it is the node\u2019s', async () => {
    const { deps, ledger, sealKeyAt } = await setUp();
    const before = sealKeyAt();
    const publisher = new SealKeyPublisher(deps);
    await publisher.publish(never);
    const asked = ledger.calls.length;
    await publisher.publish(never);
    expect(ledger.calls).toHaveLength(asked);
    expect(sealKeyAt()).toBe(before);
  });

  test('follows every rotation, and the node learns that it did', async () => {
    const { deps, noted, sealKeys, sealKeyAt, rotate } = await setUp();
    const publisher = new SealKeyPublisher(deps);
    await publisher.publish(never);
    rotate();
    await publisher.publish(never);
    expect(sealKeyAt()).toBe(base64(sealKeys.current));
    expect(noted.at(-1)).toEqual(sealKeys.current);
  });

  test('is told again when a key file was restored that the log has moved on from', async () => {
    const { deps, sealKeys, sealKeyAt, rotate } = await setUp();
    const restored = sealKeys.current;
    rotate();
    await new SealKeyPublisher(deps).publish(never);
    sealKeys.current = restored;
    await new SealKeyPublisher(deps).publish(never);
    expect(sealKeyAt()).toBe(base64(restored));
  });

  test('is not taken as told when the answer was lost or names another key', async () => {
    const { deps, ledger, noted, rotate, sealKeys } = await setUp();
    const publisher = new SealKeyPublisher(deps);
    rotate();
    ledger.losesAnswers = true;
    await expect(publisher.publish(never)).rejects.toMatchObject({ code: 'E_UNAVAILABLE' });
    ledger.losesAnswers = false;
    const enrol = ledger.enrol.bind(ledger);
    ledger.enrol = async (envelope) => ({ ...(await enrol(envelope)), sealKey: base64(restOf()) });
    await expect(publisher.publish(never)).rejects.toMatchObject({ code: 'E_CONFLICT' });
    expect(noted).toEqual([]);
    ledger.enrol = enrol;
    await publisher.publish(never);
    expect(noted).toEqual([sealKeys.current]);
  });
});

const restOf = () => createKey().publicKey;
