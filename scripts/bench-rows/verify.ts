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
import { type Budget, type Row, round } from './measure.ts';

/** Each signed apart, so that nothing about an envelope can be remembered from the one before. */
const ENVELOPES = 50;
/** Ours and the floor take turns, so that a busy machine slows both. */
const ROUNDS = 200;
const WARM_ROUNDS = 200;
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
 * What a node does with an envelope before it accepts it: every check of `admit`, with the payload read
 * strictly and the freshness judged by a checkpoint. Against the bare signature check over the same bytes
 * with the same key.
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
  const signed = envelopes.map(signedBytesOf);
  const key: KeyObject = createPublicKey(fleet.operator.pem);
  const ours = () => {
    for (const envelope of envelopes) {
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
  // The fastest round of each: whatever else the machine does can only slow one down.
  const rate = (which: 'ours' | 'floor') =>
    Math.round(ENVELOPES / Math.min(...rounds.map((one) => one[which])));
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
