/** What a bundle proves about the log: that all of it is in there, in an order that makes sense. */
import { describe, expect, test } from 'vitest';
import { change, enrolmentOf, FACTS, keyOf, NOW } from '../test/fleet.ts';
import { createLoggedFleet, type ProvenBundle, proven } from '../test/proven-bundle.ts';
import { bundleOf } from '../test/run.ts';
import {
  type Authority,
  base64,
  type Envelope,
  nodeIdOf,
  type PayloadInput,
  payloadBytes,
  type Signer,
  signEnvelope,
  verifyBundle,
} from './index.ts';
import { nodeVerifier } from './node/index.ts';

const fleet = createLoggedFleet();
const { authority, root } = fleet;
const plain = bundleOf(fleet);
const good = await proven(plain, { authority });
const verdictOf = (bundle: unknown) =>
  verifyBundle(nodeVerifier, { bundle, genesisHash: authority.genesisHash });
const failureOf = (bundle: unknown) => {
  const { failure } = verdictOf(bundle);
  return failure === null ? 'holds' : `${failure.check} ${failure.code}`;
};

const revoked = (keyid: string, from: Authority = authority) =>
  change(from, { type: 'revoke', keyid, reason: 'stolen' }, [root]);
const nodeRevoked = (node: string) =>
  change(authority, { type: 'revoke-node', node, reason: 'stolen' }, [root]);
const newest = ({ updates }: Authority): Envelope => updates.at(-1) ?? plain.genesis;

test('a whole bundle says which log all of it stands in, and where', () => {
  const verdict = verdictOf(JSON.parse(JSON.stringify(good)));
  expect(verdict).toMatchObject({ holds: true, failure: null, remarks: [] });
  expect(verdict.checkpoint).toMatchObject({ size: 7, authority: { seq: 3 }, time: NOW + 60 });
  expect(verdict.checks).toEqual(
    expect.arrayContaining([
      expect.stringMatching(
        /^the ledger signed the log of 7 entries with root [0-9a-f]{12}… at 2026-01-01T00:01:00.000Z, and no authority update of it is missing here$/,
      ),
      'all 4 authority updates are in that log, in their order',
      'the admin ada admitted a node as edge-1, entry 4 of the log, with a key that was not revoked by then',
      expect.stringMatching(/^node node_[a-z2-7]{32} enrolled .* own key, entry 5 of the log$/),
      'receipt 1 is signed by the key the node enrolled with, entry 6 of the log',
    ]),
  );
});

test('a bundle without proofs holds, and says what that leaves open', () => {
  const { remarks, holds, checkpoint } = verdictOf(plain);
  expect({ holds, checkpoint }).toEqual({ holds: true, checkpoint: null });
  expect(remarks).toEqual([expect.stringContaining('version 1 carries no proof from the log')]);
});

test('an unknown member is refused', () => {
  expect(failureOf({ ...good, note: '' })).toBe('bundle E_PAYLOAD');
});

describe('the checkpoint', () => {
  test('is signed by the key the authority names', async () => {
    const other = await proven(plain, { authority, signer: keyOf('other ledger') });
    expect(failureOf(other)).toBe('checkpoint E_CHECKPOINT');
  });

  test('is refused after one changed character', () => {
    const changed = good.checkpoint.replace('\n7\n', '\n8\n');
    expect(changed).not.toBe(good.checkpoint);
    expect(failureOf({ ...good, checkpoint: changed })).toBe('checkpoint E_CHECKPOINT');
  });

  test('counts for nothing where the authority names no key', () => {
    const early = { ...good, authority: authority.at(2).updates.slice(1) };
    expect(failureOf(early)).toBe('checkpoint E_CHECKPOINT');
  });

  test('shows that the bundle withholds a revocation', async () => {
    const later = revoked(fleet.operator.keyid);
    const bundle = await proven(plain, { authority: later });
    expect(failureOf(bundle)).toBe('holds');
    const withheld = { ...bundle, authority: bundle.authority.slice(0, -1) };
    expect(failureOf(withheld)).toBe('checkpoint E_STALE_VIEW');
  });

  test('shows that the bundle holds another authority than the log', async () => {
    const forked = await proven(plain, { authority, newest: { seq: 3, head: '0'.repeat(64) } });
    expect(failureOf(forked)).toBe('checkpoint E_LOG_FORK');
  });
});

describe('every statement has to be in the log', () => {
  const without = (at: number): ProvenBundle => ({ ...good, proofs: good.proofs.toSpliced(at, 1) });
  const moved = (at: number): ProvenBundle => ({
    ...good,
    proofs: good.proofs.map((entry, index) =>
      index === at ? { ...entry, index: entry.index - 1 } : entry,
    ),
  });
  const resigned = (envelope: Envelope): Envelope => ({
    ...envelope,
    signatures: [
      ...envelope.signatures,
      { keyid: fleet.operator.keyid, sig: base64(new Uint8Array(64)) },
    ],
  });

  test.for([
    ['the genesis has no proof', without(0), 'log E_PROOF'],
    ['an authority update has no proof', without(2), 'log E_PROOF'],
    ['the admission has no proof', without(4), 'admission E_PROOF'],
    ['the enrolment has no proof', without(5), 'enrolment E_PROOF'],
    ['the receipt has no proof', without(6), 'receipt E_PROOF'],
    ['an authority update is said to be elsewhere', moved(2), 'log E_PROOF'],
    ['the admission is said to be elsewhere', moved(4), 'admission E_PROOF'],
    ['the receipt is said to be elsewhere', moved(6), 'receipt E_PROOF'],
    [
      'the admission carries a signature the log has not',
      { ...good, admission: resigned(good.admission) },
      'admission E_PROOF',
    ],
  ] as const)('%s', ([, bundle, expected]) => {
    expect(failureOf(bundle)).toBe(expected);
  });

  test('a receipt of a log that was cut before it', async () => {
    const cut = await proven(plain, {
      authority,
      log: [...authority.updates, plain.admission, plain.enrolment],
    });
    expect(failureOf(cut)).toBe('receipt E_PROOF');
  });
});

describe('the order of the log', () => {
  const { admission, enrolment, receipt } = plain;
  const [genesis, ...updates] = authority.updates;
  const inOrder = (...log: (Envelope | undefined)[]) =>
    proven(plain, { authority, log: log.flatMap((entry) => entry ?? []) });

  test.for([
    [
      'an enrolment before its admission',
      [genesis, ...updates, enrolment, admission, receipt],
      'enrolment E_PROOF',
    ],
    [
      'a receipt before the enrolment of its node',
      [genesis, ...updates, admission, receipt, enrolment],
      'receipt E_PROOF',
    ],
    [
      'an admission before the grant of its admin',
      [genesis, admission, ...updates, enrolment, receipt],
      'admission E_UNKNOWN_KEY',
    ],
    [
      'updates out of their order',
      [genesis, updates[1], updates[0], updates[2], admission, enrolment, receipt],
      'log E_PROOF',
    ],
    [
      'a genesis that is not the first entry',
      [admission, genesis, ...updates, enrolment, receipt],
      'log E_PROOF',
    ],
  ] as const)('%s is refused', async ([, log, expected]) => {
    expect(failureOf(await inOrder(...log))).toBe(expected);
  });
});

describe('an admin key that was stolen and revoked', () => {
  const later = revoked(fleet.admin.keyid);
  const { admission, enrolment, receipt } = plain;
  const log = (...rest: Envelope[]) =>
    proven(plain, { authority: later, log: [...authority.updates, ...rest] });

  test('leaves the nodes it let in before', async () => {
    const bundle = await log(admission, enrolment, receipt, newest(later));
    expect(failureOf(bundle)).toBe('holds');
  });

  test('cannot let a node in by an admission that is dated back', async () => {
    const bundle = await log(newest(later), admission, enrolment, receipt);
    expect(failureOf(bundle)).toBe('admission E_KEY_REVOKED');
    // Without the log nobody can tell.
    expect(failureOf({ ...plain, authority: later.updates })).toBe('holds');
  });

  test('cannot let a node in by a token it gave out before', async () => {
    const bundle = await log(admission, newest(later), enrolment, receipt);
    expect(failureOf(bundle)).toBe('enrolment E_KEY_REVOKED');
  });
});

describe('a node that was revoked', () => {
  const later = nodeRevoked(fleet.nodeId);
  const { admission, enrolment, receipt } = plain;
  const log = (...rest: Envelope[]) =>
    proven(plain, { authority: later, log: [...authority.updates, ...rest] });

  test('keeps the receipts it gave before', async () => {
    expect(failureOf(await log(admission, enrolment, receipt, newest(later)))).toBe('holds');
  });

  test('gives no receipt after', async () => {
    const bundle = await log(admission, enrolment, newest(later), receipt);
    expect(failureOf(bundle)).toBe('receipt E_KEY_REVOKED');
  });

  test('does not enrol after', async () => {
    const bundle = await log(admission, newest(later), enrolment, receipt);
    expect(failureOf(bundle)).toBe('enrolment E_KEY_REVOKED');
  });
});

describe('a node that took the place of another by its signature', () => {
  const before = keyOf('node before');
  const old = enrolmentOf(fleet, { signer: before });
  const { admission } = old;
  const takeover = (signers: readonly Signer[]): Envelope => {
    const payload: PayloadInput<'enrol'> = {
      v: 1,
      publicKey: base64(fleet.node.publicKey),
      sealKey: base64(keyOf('seal').publicKey),
      admission,
      token: tokenOf(old.enrolment),
      replaces: nodeIdOf(nodeVerifier, before.publicKey),
      challenge: 'A'.repeat(22),
      bootId: '00000000-0000-4000-8000-000000000000',
      iat: NOW,
      facts: FACTS,
    };
    return signEnvelope('enrol', payloadBytes('enrol', payload), signers);
  };
  const enrolment = takeover([fleet.node, before]);
  const bundle = { ...plain, admission, enrolment };

  test('is traced through the enrolment of that one', async () => {
    expect(failureOf(await proven(bundle, { authority, replaced: [old.enrolment] }))).toBe('holds');
  });

  test('is not, when that enrolment is missing', async () => {
    expect(failureOf(await proven(bundle, { authority }))).toBe('enrolment E_UNKNOWN_KEY');
  });

  test('is not, when that enrolment came later', async () => {
    const log = [...authority.updates, admission, enrolment, old.enrolment, plain.receipt];
    const late = await proven(bundle, { authority, replaced: [old.enrolment], log });
    expect(failureOf(late)).toBe('enrolment E_PROOF');
  });

  test('keeps the place also when the admin is gone by then', async () => {
    const later = revoked(fleet.admin.keyid);
    const log = [
      ...authority.updates,
      ...[admission, old.enrolment, newest(later), enrolment, plain.receipt],
    ];
    const proof = await proven(bundle, { authority: later, replaced: [old.enrolment], log });
    expect(failureOf(proof)).toBe('holds');
  });
});

function tokenOf(enrolment: Envelope): string {
  const { token } = JSON.parse(Buffer.from(enrolment.payload, 'base64').toString()) as {
    token: string;
  };
  return token;
}
