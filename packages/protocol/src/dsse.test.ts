import { describe, expect, test } from 'vitest';
import { keyOf } from '../test/fleet.ts';
import { countCases, readVectors, VECTORS_MISSING } from '../test/shared-vectors.ts';
import { digestOf, PAYLOAD_TYPES, preAuthEncoding, signEnvelope } from './dsse.ts';
import { fromBase64, fromHex, hex, utf8 } from './encoding.ts';
import { nodeVerifier } from './node/index.ts';
import { openEnvelope } from './verify-envelope.ts';

interface PaeVectors {
  readonly spec: {
    readonly payloadType: string;
    readonly payload_b64: string;
    readonly pae: string;
  };
  readonly derived: readonly {
    readonly payloadType: string;
    readonly payload_hex: string;
    readonly pae_hex: string;
  }[];
}

describe('pre-authentication encoding', () => {
  const vectors = readVectors('dsse/pae-vectors.json') as PaeVectors | undefined;

  test('agrees with the published vectors', (context) => {
    if (vectors === undefined) context.skip(VECTORS_MISSING);
    const { spec, derived = [] } = vectors ?? {};
    expect(spec).toBeDefined();
    const { payloadType = '', payload_b64 = '', pae } = spec ?? {};
    const encoded = preAuthEncoding(payloadType, fromBase64(payload_b64));
    expect(new TextDecoder().decode(encoded)).toBe(pae);
    expect(derived).toHaveLength(3);
    for (const vector of derived) {
      const bytes = preAuthEncoding(vector.payloadType, fromHex(vector.payload_hex));
      expect(hex(bytes)).toBe(vector.pae_hex);
    }
    countCases(context, 'DSSE pre-authentication encoding', 1 + derived.length);
  });

  test('counts bytes, not characters', () => {
    expect(new TextDecoder().decode(preAuthEncoding('é', utf8('€')))).toBe('DSSEv1 2 é 3 €');
  });
});

test('what one type signs verifies as no other type', () => {
  const payload = utf8('{}');
  const digests = Object.values(PAYLOAD_TYPES).map((type) => digestOf(nodeVerifier, type, payload));
  expect(new Set(digests).size).toBe(Object.keys(PAYLOAD_TYPES).length);
});

test('the digest is of the bytes, whoever signs them and in whichever alphabet they travel', () => {
  const payload = new Uint8Array([0xfb, 0xff, 0xfe]);
  const one = signEnvelope('report', payload, [keyOf('node')]);
  const other = {
    ...signEnvelope('report', payload, [keyOf('other')]),
    payload: one.payload.replaceAll('+', '-').replaceAll('/', '_'),
  };
  expect(other.payload).not.toBe(one.payload);
  expect(openEnvelope(nodeVerifier, other, 'report').digest).toBe(
    openEnvelope(nodeVerifier, one, 'report').digest,
  );
});
