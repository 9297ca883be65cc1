/**
 * Wire formats as they were released: bytes, digests and signatures of one thing of each kind. If a test
 * here fails, the change is wrong: a format gains fields only with a new version (design §8).
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import {
  change,
  createFleet,
  entropyOf,
  FACTS,
  grantOf,
  keyOf,
  NOW,
  payloadOf,
  scriptOf,
} from '../test/fleet.ts';
import { bundleOf } from '../test/run.ts';
import {
  base64,
  buildCancelPayload,
  type Envelope,
  fromBase64,
  fromUtf8,
  keyIdOf,
  nodeIdOf,
  PAYLOAD_TYPES,
  payloadBytes,
  preAuthEncoding,
  ridOf,
  runIdOf,
  signCancel,
  signReport,
  verifyBundle,
  verifyScript,
} from './index.ts';
import { generateKey, nodeVerifier } from './node/index.ts';
import { envelopeDigest } from './verify-envelope.ts';

const fleet = createFleet();
const free = { milliCpus: 1000, memoryBytes: 1, storageBytes: 1 };
const { admission, enrolment, journal, receipt } = bundleOf(fleet);
const report = signReport(
  {
    v: 1,
    node: fleet.nodeId,
    seq: 1,
    bootId: '00000000-0000-4000-8000-000000000000',
    uptimeMs: 1234,
    at: NOW * 1000,
    facts: FACTS,
    reserved: free,
    free,
    runsActive: 0,
    authoritySeq: 2,
  },
  fleet.node,
);

const script = scriptOf(fleet);
const cancel = signCancel(
  buildCancelPayload(
    {
      realm: 'default',
      nodes: [fleet.nodeId],
      target: envelopeDigest(nodeVerifier, script, 'script'),
      authority: fleet.authority,
    },
    entropyOf('cancel'),
  ),
  [fleet.operator],
);

const envelopes = {
  script,
  cancel,
  authority: fleet.authority.updates[2],
  admission,
  enrol: enrolment,
  report,
  receipt,
} as const;

const read = (name: string): unknown =>
  JSON.parse(readFileSync(join(import.meta.dirname, '../golden', name), 'utf8'));

/** What is compared: the payload as text, so that a difference can be read. */
function shown(kind: keyof typeof envelopes, envelope: Envelope) {
  return {
    digest: envelopeDigest(nodeVerifier, envelope, kind),
    payloadType: envelope.payloadType,
    payload: fromUtf8(fromBase64(envelope.payload)),
    signatures: envelope.signatures,
  };
}

test.for(Object.entries(envelopes))(
  'the %s envelope is byte for byte what it was',
  ([kind, envelope]) => {
    if (envelope === undefined) throw new Error('no envelope');
    expect(shown(kind as keyof typeof envelopes, envelope)).toEqual(read(`${kind}.v1.json`));
  },
);

test('the journal and its hashes are what they were', () => {
  expect(journal).toEqual(read('journal.v1.json'));
});

test('released envelopes verify from their files alone', () => {
  const genesis = fleet.authority.updates.map((envelope) => shown('authority', envelope));
  expect(genesis).toEqual(read('authority-chain.v1.json'));
  const bundle = read('bundle.v1.json');
  expect(
    verifyBundle(nodeVerifier, { bundle, genesisHash: fleet.authority.genesisHash }).failure,
  ).toBeNull();
});

test('ids are derived as they were', () => {
  const digest = envelopeDigest(nodeVerifier, envelopes.script, 'script');
  const identity = { realm: 'default', deployment: 'web', kind: 'volume', name: 'data' };
  expect({
    keyid: keyIdOf(nodeVerifier, fleet.operator.publicKey),
    node: nodeIdOf(nodeVerifier, fleet.node.publicKey),
    run: runIdOf(nodeVerifier, digest, fleet.nodeId),
    rid: ridOf(nodeVerifier, identity),
  }).toEqual(read('ids.v1.json'));
});

test('openssl pkeyutl over the pre-authentication bytes makes a signature we accept', () => {
  const directory = mkdtempSync(join(tmpdir(), 'hypha-openssl-'));
  try {
    const { pem, signer } = generateKey();
    const payload = payloadBytes('script', payloadOf(fleet));
    writeFileSync(join(directory, 'key.pem'), pem, { mode: 0o600 });
    writeFileSync(join(directory, 'pae'), preAuthEncoding(PAYLOAD_TYPES.script, payload));
    execFileSync(
      'openssl',
      ['pkeyutl', '-sign', '-rawin', '-inkey', 'key.pem', '-in', 'pae', '-out', 'sig'],
      { cwd: directory },
    );
    const sig = base64(new Uint8Array(readFileSync(join(directory, 'sig'))));
    const envelope = {
      payloadType: PAYLOAD_TYPES.script,
      payload: base64(payload),
      signatures: [{ keyid: signer.keyid, sig }],
    };
    const grant = grantOf(signer, { name: 'oscar' });
    const authority = change(fleet.authority, { type: 'grant', grant }, [fleet.root]);
    const input = { envelope, authority, profile: 'execute', nowSeconds: NOW } as const;
    expect(verifyScript(nodeVerifier, input).keyids).toEqual([signer.keyid]);
    expect(keyOf('operator').keyid).not.toBe(signer.keyid);
  } finally {
    rmSync(directory, { recursive: true });
  }
});
