/** Bundles with proofs from a log that a test lays out entry by entry. */
import {
  type AuditBundle,
  type Authority,
  base64,
  canonicalBytes,
  checkpointOrigin,
  type Envelope,
  envelopeDigest,
  hex,
  inclusionProof,
  leafHash,
  merkleRoot,
  PAYLOAD_TYPES,
  type PayloadKind,
  type Signer,
  signCheckpoint,
} from '../src/index.ts';
import { nodeVerifier } from '../src/node/index.ts';
import { change, createFleet, type Fleet, keyOf, NOW } from './fleet.ts';

export type ProvenBundle = Extract<AuditBundle, { v: 2 }>;

export const ledgerKey = keyOf('ledger');

/** The small fleet whose authority also names the key of its ledger: update 3. */
export function createLoggedFleet(): Fleet {
  const fleet = createFleet();
  const publicKey = base64(ledgerKey.publicKey);
  const authority = change(fleet.authority, { type: 'set-ledger-key', publicKey }, [fleet.root]);
  return { ...fleet, authority };
}

function digestOf(envelope: Envelope): string {
  const kind = (Object.keys(PAYLOAD_TYPES) as PayloadKind[]).find(
    (name) => PAYLOAD_TYPES[name] === envelope.payloadType,
  );
  return envelopeDigest(nodeVerifier, envelope, kind ?? 'receipt');
}

/**
 * The bundle with a checkpoint over `log` and a proof of every entry of it.
 * @param log oldest first; default: the authority, the admission, the enrolments, the receipt
 */
export async function proven(
  bundle: AuditBundle,
  options: {
    readonly authority: Authority;
    readonly replaced?: readonly Envelope[];
    readonly log?: readonly Envelope[];
    readonly signer?: Signer;
    /** What the checkpoint says the newest update is; default: that of `authority`. */
    readonly newest?: { readonly seq: number; readonly head: string };
  },
): Promise<ProvenBundle> {
  const { authority, replaced = [], signer = ledgerKey, newest = authority } = options;
  const { admission, enrolment, receipt } = bundle;
  const log = options.log ?? [...authority.updates, admission, ...replaced, enrolment, receipt];
  const leaves = log.map((envelope) => leafHash(nodeVerifier, canonicalBytes(envelope)));
  const readNode = (level: number, index: number) =>
    merkleRoot(nodeVerifier, leaves.slice(index * 2 ** level, (index + 1) * 2 ** level));
  const size = leaves.length;
  const proofs = log.map(async (envelope, index) => ({
    digest: digestOf(envelope),
    index,
    proof: (await inclusionProof(nodeVerifier, { index, size }, readNode)).map(hex),
  }));
  const checkpoint = signCheckpoint(
    nodeVerifier,
    {
      origin: checkpointOrigin(authority.genesisHash),
      size,
      root: hex(merkleRoot(nodeVerifier, leaves)),
      authority: { seq: newest.seq, head: newest.head },
      time: NOW + 60,
    },
    signer,
  );
  return {
    ...bundle,
    v: 2,
    authority: authority.updates.slice(1),
    replaced: [...replaced],
    checkpoint,
    proofs: await Promise.all(proofs),
  };
}
