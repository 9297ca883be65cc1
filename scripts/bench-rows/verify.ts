import { createPublicKey, type KeyObject, verify } from 'node:crypto';
import { readFileSync } from 'node:fs';
import {
  checkpointOrigin,
  type Envelope,
  fromBase64,
  preAuthEncoding,
  verifyCheckpoint,
  verifyScript,
} from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import { admitNode, createFleet, signedScript, TestLog } from '@hypha/testkit';
import { type Budget, percentile, type Row, round } from './measure.ts';

/** Each signed apart, so that nothing about an envelope can be remembered from the one before. */
const ENVELOPES = 200;
/** Ours and the floor take turns, so that a busy machine slows both. */
const ROUNDS = 41;
const WARM_ROUNDS = 20;
const SOURCE = new URL('../../examples/web.ts', import.meta.url);

interface SignedBytes {
  readonly message: Uint8Array;
  readonly signature: Uint8Array;
}

/** Seconds of one pass over all envelopes. */
function timed(pass: () => void): number {
  const start = performance.now();
  pass();
  return (performance.now() - start) / 1000;
}

function signedBytesOf({ payloadType, payload, signatures }: Envelope): SignedBytes {
  const message = preAuthEncoding(payloadType, fromBase64(payload));
  return { message, signature: fromBase64(signatures[0]?.sig ?? '') };
}

/**
 * What a node does with a submission before it accepts it, from the bytes of the envelope to the verdict,
 * against the bare signature check over the same bytes with the same key.
 */
async function measure(): Promise<Row> {
  const fleet = createFleet();
  const node = admitNode(fleet);
  const source = readFileSync(SOURCE, 'utf8');
  const nowSeconds = Math.floor(Date.now() / 1000);
  const checkpoint = verifyCheckpoint(nodeVerifier, TestLog.of(fleet).checkpoint(), {
    origin: checkpointOrigin(fleet.authority.genesisHash),
    publicKey: fleet.ledgerKey.publicKey,
  });
  const envelopes = Array.from({ length: ENVELOPES }, (_, index) =>
    signedScript(fleet, { draft: { nodes: [node.id], source, generation: index + 1 } }),
  );
  const raw = envelopes.map((envelope) => Buffer.from(JSON.stringify(envelope)));
  const signed = envelopes.map(signedBytesOf);
  const key: KeyObject = createPublicKey(fleet.operator.pem);
  const ours = () => {
    for (const envelope of raw) {
      verifyScript(nodeVerifier, {
        ...{ envelope, authority: fleet.authority, checkpoint, profile: 'admit', nowSeconds },
        node: { id: node.id, realms: node.realms },
      });
    }
  };
  const floor = () => {
    for (const { message, signature } of signed) {
      if (!verify(null, message, key, signature)) throw new Error('a signature does not hold');
    }
  };
  const rounds = Array.from({ length: WARM_ROUNDS + ROUNDS }, () => ({
    ours: timed(ours),
    floor: timed(floor),
  })).slice(WARM_ROUNDS);
  const rate = (which: 'ours' | 'floor') =>
    Math.round(
      (ENVELOPES /
        percentile(
          rounds.map((one) => one[which] * 1000),
          0.5,
        )) *
        1000,
    );
  const perSecond = rate('ours');
  const floorPerSecond = rate('floor');
  return {
    name: 'verify',
    perSecond,
    floor: { name: 'crypto.verify', perSecond: floorPerSecond },
    ratio: round(perSecond / floorPerSecond),
  };
}

export const verifyRow: Budget = {
  goal: 'ratio ≥ 0.6',
  isMet: ({ ratio = 0 }) => ratio >= 0.6,
  measure,
};
