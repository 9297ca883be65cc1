import type { AuditBundle, EntryProof } from './api.ts';
import type { Authority } from './authority.ts';
import { canonicalBytes } from './canonical-json.ts';
import { type Checkpoint, checkpointOrigin, verifyCheckpoint } from './checkpoint.ts';
import type { Verifier } from './crypto-port.ts';
import type { Envelope, PayloadKind } from './dsse.ts';
import { fromHex } from './encoding.ts';
import { HyphaError } from './hypha-error.ts';
import { leafHash, verifyInclusion } from './merkle.ts';
import { envelopeDigest } from './verify-envelope.ts';

type ProvenBundle = Extract<AuditBundle, { v: 2 }>;

/**
 * The checkpoint all proofs lead to, signed by the key the authority names for that. Its authority line says
 * which update was the newest: the bundle has to hold all up to it, so none can be withheld.
 * @throws HyphaError `E_CHECKPOINT`, `E_STALE_VIEW`, `E_LOG_FORK`
 */
export function checkBundleCheckpoint(
  verifier: Verifier,
  { checkpoint: note }: ProvenBundle,
  authority: Authority,
): Checkpoint {
  const { ledgerKey, genesisHash } = authority;
  if (ledgerKey === undefined) {
    throw new HyphaError('E_CHECKPOINT', 'the authority of the bundle names no key of the ledger');
  }
  const origin = checkpointOrigin(genesisHash);
  const { publicKey } = ledgerKey;
  const checkpoint = verifyCheckpoint(verifier, note, { origin, publicKey });
  const { seq, head } = checkpoint.authority;
  if (authority.seq !== seq) {
    throw new HyphaError(
      'E_STALE_VIEW',
      `the checkpoint is at authority update ${seq}, the bundle ends at ${authority.seq}`,
      { where: { path: 'authority' }, hint: 'export the bundle again' },
    );
  }
  if (authority.head !== head) {
    throw new HyphaError(
      'E_LOG_FORK',
      `the checkpoint has ${head} as authority update ${seq}, the bundle ${authority.head}`,
      { where: { path: 'authority' }, details: { checkpoint: note, bundle: authority.head } },
    );
  }
  return checkpoint;
}

/** Where the statements of a bundle stand in the log, and who might do what at those places. */
export class BundleLog {
  readonly #verifier: Verifier;
  readonly #checkpoint: Checkpoint;
  readonly #authority: Authority;
  /** digest → its proof, none of them believed yet. */
  readonly #proofs: ReadonlyMap<string, EntryProof>;
  /** Index of each authority update, by seq. */
  readonly #updates: readonly number[];

  /** @throws HyphaError `E_PROOF` when an authority update is not in the log, or not in its order */
  constructor(
    verifier: Verifier,
    bundle: ProvenBundle,
    known: { readonly authority: Authority; readonly checkpoint: Checkpoint },
  ) {
    this.#verifier = verifier;
    this.#checkpoint = known.checkpoint;
    this.#authority = known.authority;
    this.#proofs = new Map(bundle.proofs.map((proof) => [proof.digest, proof]));
    this.#updates = known.authority.updates.map((update, seq) =>
      this.indexOf(update, 'authority', `authority update ${seq}`),
    );
    this.#updates.forEach((index, seq) => {
      const before = this.#updates[seq - 1] ?? -1;
      if (before >= index || (seq === 0 && index !== 0)) {
        throw new HyphaError(
          'E_PROOF',
          `authority update ${seq} is entry ${index}, which is not where the chain has it`,
          { where: { path: 'proofs' } },
        );
      }
    });
  }

  /** The envelope's place, proven: these very bytes with these signatures. Throws `E_PROOF`. */
  indexOf(envelope: Envelope, kind: PayloadKind, name: string): number {
    const verifier = this.#verifier;
    const found = this.#proofs.get(envelopeDigest(verifier, envelope, kind));
    if (found === undefined) {
      throw new HyphaError('E_PROOF', `the bundle has no proof that ${name} is in the log`, {
        where: { path: 'proofs' },
      });
    }
    const { index, proof } = found;
    try {
      verifyInclusion(verifier, {
        index,
        size: this.#checkpoint.size,
        leafHash: leafHash(verifier, canonicalBytes(envelope)),
        proof: proof.map(fromHex),
        root: fromHex(this.#checkpoint.root),
      });
    } catch (cause) {
      const reason = cause instanceof HyphaError ? `: ${cause.message}` : '';
      throw new HyphaError('E_PROOF', `${name} is not entry ${index} of the log${reason}`, {
        cause,
        where: { path: 'proofs' },
      });
    }
    return index;
  }

  /** The state after the last update before this place in the log. */
  authorityAt(index: number): Authority {
    return this.#authority.at(this.#updates.findLastIndex((update) => update < index));
  }
}
