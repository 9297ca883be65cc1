import { describe, expect, test } from 'vitest';
import { keyOf, refusalOf } from '../test/fleet.ts';
import { signEnvelope, utf8, verifyEnvelope } from './index.ts';
import { nodeVerifier } from './node/index.ts';

const [one, two] = [keyOf('one'), keyOf('two')];
const payload = utf8('{"a":1}');
const envelope = signEnvelope('report', payload, [one]);
const kind = 'report';

describe('verifying an envelope', () => {
  test('gives the bytes that were signed and the keys that signed them, in order', () => {
    const keys = new Map([one, two].map(({ keyid, publicKey }) => [keyid, publicKey]));
    const both = signEnvelope('report', payload, [two, one]);
    const verified = verifyEnvelope(nodeVerifier, {
      envelope: both,
      kind,
      keys: (keyid) => keys.get(keyid),
    });
    expect(verified.payload).toEqual(payload);
    expect(verified.keyids).toEqual([two.keyid, one.keyid]);
  });

  test('counts a key under no other name than its own', () => {
    const alias = { ...one, keyid: two.keyid };
    const aliased = signEnvelope('report', payload, [one, alias]);
    const keys = () => one.publicKey;
    expect(
      refusalOf(() => verifyEnvelope(nodeVerifier, { envelope: aliased, kind, keys })),
    ).toEqual({
      code: 'E_UNKNOWN_KEY',
      path: 'signatures.1.keyid',
    });
    expect(verifyEnvelope(nodeVerifier, { envelope, kind, keys }).keyids).toEqual([one.keyid]);
  });

  test('asks for every key before it looks at any signature', () => {
    const forged = signEnvelope('report', payload, [
      { ...one, sign: () => new Uint8Array(64) },
      two,
    ]);
    const keys = (keyid: string) => (keyid === one.keyid ? one.publicKey : undefined);
    expect(
      refusalOf(() => verifyEnvelope(nodeVerifier, { envelope: forged, kind, keys })).code,
    ).toBe('E_UNKNOWN_KEY');
  });

  test('does not depend on the verifier for what a verifier may get wrong', () => {
    const lax = { ...nodeVerifier, verifyEd25519: () => true };
    const malleable = { ...one, sign: () => new Uint8Array(64).fill(0xff) };
    const forged = signEnvelope('report', payload, [malleable]);
    const keys = () => one.publicKey;
    expect(refusalOf(() => verifyEnvelope(lax, { envelope: forged, kind, keys })).code).toBe(
      'E_SIG_MALLEABLE',
    );
  });
});
