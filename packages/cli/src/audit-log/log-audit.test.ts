/** A log read whole: what a ledger could leave out, change, move or add, and how it is named. */
import {
  type Authority,
  base64,
  base64url,
  canonicalBytes,
  checkpointOrigin,
  type Envelope,
  envelopeDigest,
  fromBase64,
  fromUtf8,
  hex,
  type LogEntry,
  leafHash,
  merkleRoot,
  nodeIdOf,
  PAYLOAD_TYPES,
  type PayloadInput,
  type PayloadKind,
  payloadBytes,
  type ReceiptPayload,
  runIdOf,
  signCheckpoint,
  signEnvelope,
  signReceipt,
  utf8,
  verifyCheckpoint,
} from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import {
  admitNode,
  createFleet,
  createKey,
  enrolmentOf,
  FACTS,
  grantOf,
  signUpdate,
  type TestKey,
  TestLog,
  type TestNode,
} from '@hypha/testkit';
import { describe, expect, test } from 'vitest';
import type { AuditedEntry } from './entry-auditor.ts';
import { FAULTS_MAX, LogAudit } from './log-audit.ts';

const fleet = createFleet();
const { authority, ledgerKey } = fleet;
const node = admitNode(fleet);
const enrolment = enrolmentOf(node);
const receipts = chainOf(node, 3);
/** Entries 0 to 3 the authority, 4 the admission, 5 the enrolment, 6 to 8 receipts. */
const good = [...authority.updates, node.admission, enrolment, ...receipts];

function chainOf(by: TestNode, count: number): Envelope[] {
  const made: Envelope[] = [];
  let prev: string | null = null;
  for (let seq = 1; seq <= count; seq++) {
    const envelope = receiptOf(by, { seq, prev });
    prev = envelopeDigest(nodeVerifier, envelope, 'receipt');
    made.push(envelope);
  }
  return made;
}

function receiptOf(by: TestNode, overrides: Partial<ReceiptPayload>): Envelope {
  const envelopeDigest = hex(nodeVerifier.sha256(utf8(`script ${overrides.seq}`)));
  const payload: PayloadInput<'receipt'> = {
    v: 1,
    run: runIdOf(nodeVerifier, envelopeDigest, by.id),
    envelopeDigest,
    node: by.id,
    realm: 'default',
    deployment: 'web',
    generation: overrides.seq ?? 1,
    mode: 'apply',
    state: 'succeeded',
    startedAt: 1,
    endedAt: 2,
    steps: 1,
    journalHead: '0'.repeat(64),
    undone: 0,
    leftovers: [],
    prev: null,
    seq: 1,
    authoritySeq: 3,
    ...overrides,
  };
  return signReceipt(payload, by.key);
}

function entryOf(envelope: Envelope, index: number): LogEntry {
  const kinds = Object.keys(PAYLOAD_TYPES) as PayloadKind[];
  const kind = kinds.find((each) => PAYLOAD_TYPES[each] === envelope.payloadType) ?? 'receipt';
  return {
    index,
    at: 0,
    kind,
    digest: envelopeDigest(nodeVerifier, envelope, kind),
    envelope,
    leafHash: hex(leafHash(nodeVerifier, canonicalBytes(envelope))),
  };
}

/** A head of this log that names `newest` as the authority, whatever the log holds. */
function noteNaming({ seq, head, genesisHash }: Authority, log: readonly Envelope[]): string {
  const leaves = log.map((entry) => leafHash(nodeVerifier, canonicalBytes(entry)));
  return signCheckpoint(
    nodeVerifier,
    {
      origin: checkpointOrigin(genesisHash),
      size: leaves.length,
      root: hex(merkleRoot(nodeVerifier, leaves)),
      authority: { seq, head },
      time: 1,
    },
    ledgerKey,
  );
}

const entriesOf = (log: readonly Envelope[]) => log.map(entryOf);

/** Audits what such a ledger serves; the checkpoint is of `signed`, by default the good log. */
async function audit(
  served: readonly LogEntry[],
  options: {
    readonly signed?: readonly Envelope[];
    readonly note?: string;
    readonly remembered?: readonly Envelope[];
    readonly newest?: Authority;
    readonly pageEntries?: number;
  } = {},
) {
  const { signed = good, newest = authority, pageEntries = 2 } = options;
  const noteOf = (log: readonly Envelope[]) => new TestLog(ledgerKey, log).checkpoint();
  const origin = `hypha/${authority.genesisHash}`;
  const { publicKey } = ledgerKey;
  const log = new LogAudit({
    ledger: {
      checkpoint: async () => ({ checkpoint: options.note ?? noteOf(signed) }),
      listEntries: async ({ cursor } = {}) => {
        const from = Number(cursor ?? 0);
        const to = from + pageEntries;
        const nextCursor = to < served.length ? String(to) : null;
        return { items: served.slice(from, to), nextCursor };
      },
    },
    verifier: nodeVerifier,
    genesisHash: authority.genesisHash,
    authority: newest,
    remembered:
      options.remembered === undefined
        ? null
        : verifyCheckpoint(nodeVerifier, noteOf(options.remembered), { origin, publicKey }),
  });
  const entries: AuditedEntry[] = [];
  for await (const page of log.pages()) entries.push(...page);
  return { log, entries, verdict: log.verdict() };
}

const faultsOf = async (...args: Parameters<typeof audit>) =>
  (await audit(...args)).verdict.faults.map(({ index, code }) => `${index} ${code}`);

const changed = (envelope: Envelope, from: string, to: string): Envelope => {
  const text = fromUtf8(fromBase64(envelope.payload));
  expect(text).toContain(from);
  return { ...envelope, payload: base64(utf8(text.replace(from, to))) };
};

test('a whole log is complete, and knows keys and nodes by name', async () => {
  const { verdict, entries, log } = await audit(entriesOf(good), { remembered: good.slice(0, 6) });
  expect(verdict).toMatchObject({ complete: true, size: 9, faults: [] });
  expect(entries.map(({ statement }) => statement.kind)).toEqual([
    ...['authority', 'authority', 'authority', 'authority'],
    ...['admission', 'enrol', 'receipt', 'receipt', 'receipt'],
  ]);
  const ids = [fleet.roots[0], fleet.admin, fleet.operator, ledgerKey, node.key];
  expect([...ids.map((key) => log.nameOf(key?.keyid ?? '')), log.nameOf(node.id)]).toEqual([
    ...['root-0', 'ada', 'olivia', 'the ledger', 'node-1', 'node-1'],
  ]);
});

test('what is appended while it is read is left for the next time', async () => {
  const more = [...good, ...chainOf(admitNode(fleet), 1)];
  expect((await audit(entriesOf(more))).verdict).toMatchObject({ complete: true, size: 9 });
});

describe('what a ledger serves is held against what it signed', () => {
  const swap = <T>(list: readonly T[], at: number): T[] => {
    const [a, b] = list.slice(at, at + 2);
    return a === undefined || b === undefined ? [...list] : list.toSpliced(at, 2, b, a);
  };
  const entries = entriesOf(good);
  const withEntry = (at: number, entry: Partial<LogEntry>) =>
    entries.map((each) => (each.index === at ? { ...each, ...entry } : each));
  const flipped = changed(receipts[1] ?? enrolment, '"steps":1', '"steps":2');
  const spare = { keyid: fleet.operator.keyid, sig: base64(new Uint8Array(64)) };

  test.for([
    [
      'an entry with a changed byte',
      withEntry(7, { envelope: flipped }),
      ['7 E_DIGEST', '8 E_CONFLICT', '9 E_PROOF'],
    ],
    [
      'an entry with a changed byte and its digest',
      withEntry(7, entryOf(flipped, 7)),
      ['7 E_SIG_INVALID', '8 E_CONFLICT', '9 E_PROOF'],
    ],
    [
      'a signature that the log has not',
      withEntry(4, {
        envelope: { ...node.admission, signatures: [...node.admission.signatures, spare] },
      }),
      // The enrolment has nothing to stand on, nor have the receipts.
      [
        '4 E_SIG_INVALID',
        '5 E_TOKEN',
        '6 E_UNKNOWN_KEY',
        '7 E_UNKNOWN_KEY',
        '8 E_UNKNOWN_KEY',
        '9 E_PROOF',
      ],
    ],
    ['an entry left out', entries.toSpliced(7, 1), ['7 E_PROOF', '8 E_CONFLICT']],
    [
      'an entry left out and the rest renumbered',
      entriesOf(good.toSpliced(7, 1)),
      ['7 E_CONFLICT', '8 E_PROOF'],
    ],
    ['two entries swapped', swap(entries, 7), ['7 E_PROOF', '8 E_CONFLICT']],
    [
      'two entries swapped and renumbered',
      entriesOf(swap(good, 7)),
      ['7 E_CONFLICT', '8 E_CONFLICT', '9 E_PROOF'],
    ],
    ['an entry twice', entries.toSpliced(7, 0, ...entries.slice(6, 7)), ['6 E_PROOF']],
    ['an end cut off', entries.slice(0, 7), ['7 E_PROOF']],
    ['another kind than it is', withEntry(8, { kind: 'enrol' }), ['8 E_PAYLOAD_TYPE']],
    ['nothing at all', [], ['0 E_PROOF']],
  ] as const)('%s', async ([, served, expected]) => {
    const faults = await faultsOf(served);
    expect(faults).toEqual(expected);
    expect((await audit(served)).verdict.complete).toBe(false);
  });
});

describe('a ledger that signs what it serves is still held against', () => {
  const both = (log: readonly Envelope[], more: Parameters<typeof audit>[1] = {}) =>
    faultsOf(entriesOf(log), { signed: log, ...more });

  test('the receipts, each of which names the one before', async () => {
    expect(await both(good.toSpliced(7, 1))).toEqual(['7 E_CONFLICT']);
  });

  test('the checkpoint seen before: nothing may be gone', async () => {
    expect(await both(good.slice(0, 8), { remembered: good })).toEqual(['9 E_LOG_FORK']);
  });

  test('the checkpoint seen before: nothing may have become something else', async () => {
    const rewritten = [...good.slice(0, 6), receiptOf(node, { seq: 1, steps: 7 })];
    expect(await both(rewritten, { remembered: good.slice(0, 7) })).toEqual(['7 E_LOG_FORK']);
  });

  test('the key the authority names', async () => {
    const note = new TestLog(createKey(), good).checkpoint();
    expect(await both(good, { note })).toEqual(['0 E_CHECKPOINT']);
  });

  test('the authority in its log: its head may name no older one', async () => {
    const revoke = { type: 'revoke', keyid: fleet.operator.keyid, reason: '' } as const;
    const log = [...good, signUpdate(authority, revoke, fleet.roots)];
    const note = noteNaming(authority, log);
    expect(await faultsOf(entriesOf(log), { note })).toEqual(['10 E_LOG_FORK']);
  });

  test('the authority its checkpoint names', async () => {
    const { seq, head } = authority;
    const revoke = { type: 'revoke', keyid: fleet.operator.keyid, reason: '' } as const;
    const later = authority.apply(signUpdate(authority, revoke, fleet.roots));
    const update = later.updates.at(-1) ?? enrolment;
    // The ledger holds the revocation back and shows the log as if it had none.
    const note = new TestLog(ledgerKey, [...good, update]).checkpoint();
    expect(note).not.toContain(`authority ${seq} ${head}`);
    expect(await faultsOf(entriesOf(good), { note, newest: later })).toEqual(['9 E_PROOF']);
  });
});

describe('an entry that no honest ledger takes is named', () => {
  const audited = (log: readonly Envelope[]) => faultsOf(entriesOf(log), { signed: log });
  const update = (change: Parameters<typeof signUpdate>[1], signers: readonly TestKey[]) =>
    signUpdate(authority, change, signers);
  const revokeAdmin = update({ type: 'revoke', keyid: fleet.admin.keyid, reason: '' }, fleet.roots);
  const revokeNode = update({ type: 'revoke-node', node: node.id, reason: '' }, fleet.roots);
  const late = admitNode(fleet, { name: 'late' });

  test.for([
    [
      'an admission by an admin key after it was revoked, however it is dated',
      [...good, revokeAdmin, late.admission],
      ['10 E_KEY_REVOKED'],
    ],
    [
      'an enrolment under the token of an admin who is gone',
      [...good, late.admission, revokeAdmin, enrolmentOf(late)],
      ['11 E_KEY_REVOKED'],
    ],
    ['an enrolment without its admission', [...good, enrolmentOf(late)], ['9 E_TOKEN']],
    [
      'a receipt of a node that never enrolled',
      [...good, receiptOf(late, {})],
      ['9 E_UNKNOWN_KEY'],
    ],
    [
      'a receipt of a node after it was revoked',
      [...good, revokeNode, receiptOf(node, { seq: 4, prev: null })],
      ['10 E_KEY_REVOKED'],
    ],
  ] as const)('%s', async ([, log, expected]) => {
    expect(await audited(log)).toEqual(expected);
  });
});

test('a grant signed by nobody who may is named, and gives nobody anything', async () => {
  const thief = createKey();
  const grant = signUpdate(authority, { type: 'grant', grant: grantOf(thief) }, [thief]);
  const note = noteNaming(authority, [...good, grant]);
  const { log, verdict } = await audit(entriesOf([...good, grant]), { note });
  expect(verdict.faults).toMatchObject([{ index: 9, code: 'E_UNKNOWN_KEY' }]);
  expect(log.authority?.findKey(thief.keyid)).toBeUndefined();
});

describe('a node whose place another took', () => {
  const fresh = createKey();
  const freshId = nodeIdOf(nodeVerifier, fresh.publicKey);
  const takeover = (): Envelope => {
    const statement: PayloadInput<'enrol'> = {
      v: 1,
      publicKey: base64(fresh.publicKey),
      sealKey: base64(createKey().publicKey),
      admission: node.admission,
      token: base64url(node.token),
      replaces: node.id,
      challenge: 'A'.repeat(22),
      bootId: '00000000-0000-4000-8000-000000000000',
      iat: Math.floor(Date.now() / 1000),
      facts: FACTS,
    };
    return signEnvelope('enrol', payloadBytes('enrol', statement), [fresh, node.key]);
  };
  const prev = envelopeDigest(nodeVerifier, receipts[2] ?? enrolment, 'receipt');
  const next = { seq: 4, prev };

  test('goes on under its new key, with the receipts it had', async () => {
    const successor = { ...node, key: fresh, id: freshId };
    const log = [...good, takeover(), receiptOf(successor, next)];
    const { verdict, log: audited } = await audit(entriesOf(log), { signed: log });
    expect(verdict.faults).toEqual([]);
    expect(audited.nameOf(freshId)).toBe('node-1');
  });

  test('says nothing more under its old one', async () => {
    const log = [...good, takeover(), receiptOf(node, next)];
    expect(await faultsOf(entriesOf(log), { signed: log })).toEqual(['10 E_KEY_REVOKED']);
  });

  test('a statement for another sealing key is no enrolment', async () => {
    const log = [...good, enrolmentOf(node)];
    const { entries, verdict } = await audit(entriesOf(log), { signed: log });
    expect(verdict.faults).toEqual([]);
    expect(entries.at(-1)?.statement).toMatchObject({ kind: 'enrol', isKnown: true });
  });
});

test('a node whose journal was lost starts its receipts again', async () => {
  const log = [...good, receiptOf(node, { seq: 1, prev: null, steps: 9 })];
  expect(await faultsOf(entriesOf(log), { signed: log })).toEqual([]);
});

test('pages of nothing that promise more are not followed for ever', async () => {
  const log = new LogAudit({
    ledger: {
      checkpoint: async () => ({ checkpoint: new TestLog(ledgerKey, good).checkpoint() }),
      listEntries: async () => ({ items: [], nextCursor: '1' }),
    },
    verifier: nodeVerifier,
    genesisHash: authority.genesisHash,
    authority,
    remembered: null,
  });
  for await (const page of log.pages()) expect(page).toEqual([]);
  expect(log.verdict().complete).toBe(false);
});

test('a log of nonsense is left after so many faults', async () => {
  const [receipt] = entriesOf([receiptOf(admitNode(fleet), {})]);
  const nonsense = Array.from({ length: 1000 }, (_, at) => ({
    ...receipt,
    index: at,
  })) as LogEntry[];
  const { verdict } = await audit(nonsense, { note: '' });
  expect(verdict.faults).toHaveLength(FAULTS_MAX);
  expect(verdict.size).toBeLessThan(FAULTS_MAX + 10);
});
