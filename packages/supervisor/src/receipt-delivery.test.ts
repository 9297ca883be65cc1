import type { Journal, SignedReceipt } from '@hypha/journal';
import {
  type Checkpoint,
  canonicalBytes,
  checkpointOrigin,
  digestOf,
  type Envelope,
  HyphaError,
  PAYLOAD_TYPES,
  verifyCheckpoint,
} from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import { createLogger } from '@hypha/service';
import { admitNode, createFleet, TestLog } from '@hypha/testkit';
import { expect, test } from 'vitest';
import { ReceiptDelivery } from './receipt-delivery.ts';
import { LIMITS } from './supervisor-limits.ts';

const fleet = createFleet();
const never = new AbortController().signal;

/** Two receipts, a ledger that can be told what to do with them, and time that stands still. */
function setUp() {
  const log = TestLog.of(fleet);
  const lines: string[] = [];
  // Any envelope is as good as a receipt: what is looked at is whether it is in the log.
  const receipts: SignedReceipt[] = [1, 2].map((seq) => {
    const envelope = admitNode(fleet).admission;
    const digest = digestOf(nodeVerifier, PAYLOAD_TYPES.admission, canonicalBytes(envelope));
    return { seq, digest, envelope };
  });
  const indexes = new Map<string, number>();
  const world = {
    log,
    lines,
    receipts,
    told: 0,
    appended: [] as number[],
    monotonicMs: 0,
    /** What it does with a receipt that it answers 2xx to. */
    append: (envelope: Envelope): number => log.append(envelope),
    pinned: headOf(log) as Checkpoint | undefined,
  };
  const cursors = {
    read: async () => world.told,
    advance: async (_to: string, _what: string, seq: number) => {
      world.told = seq;
    },
  };
  const runs = {
    listReceipts: async (after: number) => receipts.filter(({ seq }) => seq > after),
  };
  const delivery = new ReceiptDelivery({
    // All that it uses of a journal.
    journal: { cursors, runs } as unknown as Journal,
    ledger: {
      appendEntry: async (envelope) => {
        const receipt = receipts.find((each) => each.envelope === envelope);
        if (receipt === undefined) throw new Error('not a receipt');
        const index = world.append(envelope);
        indexes.set(receipt.digest, index);
        world.appended.push(receipt.seq);
        return { index, digest: receipt.digest, existing: false };
      },
      inclusion: async (query) => {
        const index = 'digest' in query ? (indexes.get(query.digest) ?? -1) : query.index;
        const { size = log.size } = query;
        if (index < 0 || index >= size) throw new HyphaError('E_NOT_FOUND', 'no such entry');
        return await log.inclusion(index, size);
      },
    },
    fleetLog: {
      get pinned() {
        return world.pinned;
      },
      refresh: async () => undefined,
    },
    verifier: nodeVerifier,
    clock: {
      nowMs: () => 0,
      monotonicMs: () => world.monotonicMs,
      jitter: () => 0,
      sleep: async (ms) => {
        world.monotonicMs += ms;
      },
    },
    log: createLogger({ name: 'test', stream: { write: (line) => void lines.push(line) } }),
  });
  return { world, delivery };
}

function headOf(log: TestLog): Checkpoint {
  const origin = checkpointOrigin(fleet.authority.genesisHash);
  const { publicKey } = fleet.ledgerKey;
  return verifyCheckpoint(nodeVerifier, log.checkpoint(), { origin, publicKey });
}

test('a receipt is told once it is in the log under the pinned head, and not when the ledger took it', async () => {
  const { world, delivery } = setUp();
  expect(await delivery.deliver(never)).toBe(true);
  expect(world.appended).toEqual([1, 2]);
  expect(world.told).toBe(0);
  world.pinned = headOf(world.log);
  expect(await delivery.deliver(never)).toBe(false);
  expect(world).toMatchObject({ told: 2, appended: [1, 2] });
});

test('receipts are told in their order as far as the pinned head goes', async () => {
  const { world, delivery } = setUp();
  await delivery.deliver(never);
  const { log } = world;
  const first = log.fork(log.size - 1);
  world.pinned = headOf(first);
  expect(await delivery.deliver(never)).toBe(true);
  expect(world.told).toBe(1);
});

test('a ledger that takes a receipt and leaves it out is found out, and gets it again', async () => {
  const { world, delivery } = setUp();
  const hidden = world.log.fork(world.log.size);
  world.append = (envelope) => hidden.append(envelope);
  while (world.monotonicMs <= LIMITS.proofMsMax + LIMITS.proofPollMs) await delivery.deliver(never);
  expect(world.told).toBe(0);
  expect(world.lines.filter((line) => line.includes('receipt withheld'))).toHaveLength(1);
  await delivery.deliver(never);
  expect(world.appended).toEqual([1, 2, 1, 2]);
  world.append = (envelope) => world.log.append(envelope);
  while (world.told < 2) {
    world.pinned = headOf(world.log);
    await delivery.deliver(never);
  }
  expect(world.told).toBe(2);
});

test('a proof of something else proves nothing', async () => {
  const { world, delivery } = setUp();
  world.append = () => 0;
  world.log.append(admitNode(fleet).admission);
  world.pinned = headOf(world.log);
  await delivery.deliver(never);
  expect(world.told).toBe(0);
});

test('a ledger that was set back gets again what it has lost', async () => {
  const { world, delivery } = setUp();
  const [first] = world.receipts;
  world.told = 1;
  const known = { seq: 0, digest: '' };
  // It has nothing but the receipt before the first of those here.
  const zero = { ...world.receipts[0], seq: 0, digest: '' };
  world.receipts.unshift(zero as SignedReceipt);
  const has = new Map<Envelope, number>();
  world.append = (envelope) => {
    const index = has.get(envelope);
    if (index !== undefined) return index;
    const isNext = envelope === first?.envelope ? known.seq === 0 : known.seq === 1;
    if (!isNext) {
      throw new HyphaError('E_CONFLICT', 'receipt 2 does not follow 0', {
        details: { known, given: { seq: 2 } },
      });
    }
    known.seq++;
    has.set(envelope, world.log.append(envelope));
    return has.get(envelope) ?? -1;
  };
  await expect(delivery.deliver(never)).rejects.toMatchObject({ code: 'E_UNAVAILABLE' });
  world.pinned = headOf(world.log);
  await delivery.deliver(never);
  expect(world.told).toBe(2);
  expect(world.lines.filter((line) => line.includes('"alarm":true'))).toEqual([]);
});

test('what the ledger refuses for good is an alarm, and is tried again', async () => {
  const { world, delivery } = setUp();
  world.append = () => {
    throw new HyphaError('E_CONFLICT', 'receipt 1 does not follow');
  };
  await expect(delivery.deliver(never)).rejects.toMatchObject({ code: 'E_CONFLICT' });
  await expect(delivery.deliver(never)).rejects.toMatchObject({ code: 'E_CONFLICT' });
  expect(world.lines.filter((line) => line.includes('"alarm":true'))).toHaveLength(1);
  world.append = (envelope) => world.log.append(envelope);
  await delivery.deliver(never);
  expect(world.appended).toEqual([1, 2]);
});
