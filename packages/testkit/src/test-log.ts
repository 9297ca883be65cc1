/** A ledger's log in memory, for tests of whoever checks one. */
import {
  Authority,
  canonicalBytes,
  checkpointOrigin,
  consistencyProof,
  type Envelope,
  hex,
  inclusionProof,
  type LogConsistency,
  type LogInclusion,
  leafHash,
  merkleRoot,
  PAYLOAD_TYPES,
  type ReadNode,
  type Signer,
  signCheckpoint,
} from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import type { TestFleet } from './fleet.ts';

export class TestLog {
  readonly #ledgerKey: Signer;
  readonly #entries: Envelope[] = [];
  readonly #leaves: Uint8Array[] = [];

  /** @param entries the genesis first */
  constructor(ledgerKey: Signer, entries: readonly Envelope[]) {
    this.#ledgerKey = ledgerKey;
    for (const entry of entries) this.append(entry);
  }

  /** Begins with the fleet's authority chain. */
  static of(fleet: Pick<TestFleet, 'authority' | 'ledgerKey'>): TestLog {
    return new TestLog(fleet.ledgerKey, fleet.authority.updates);
  }

  get size(): number {
    return this.#entries.length;
  }

  /** Answers the index. */
  append(envelope: Envelope): number {
    this.#entries.push(envelope);
    this.#leaves.push(leafHash(nodeVerifier, canonicalBytes(envelope)));
    return this.#entries.length - 1;
  }

  /** Another log with the same first entries: what a ledger with two histories has. */
  fork(size: number): TestLog {
    return new TestLog(this.#ledgerKey, this.#entries.slice(0, size));
  }

  /** The authority at a size: the replayed chain of the updates among its entries. */
  authority(size = this.size): Authority {
    const updates = this.#entries
      .slice(0, size)
      .filter(({ payloadType }) => payloadType === PAYLOAD_TYPES.authority);
    return Authority.replay(nodeVerifier, updates);
  }

  /** The note a ledger would sign; `time` in seconds, now by default. */
  checkpoint(
    options: { readonly size?: number; readonly time?: number; readonly signer?: Signer } = {},
  ): string {
    const { size = this.size, signer = this.#ledgerKey } = options;
    const { time = Math.floor(Date.now() / 1000) } = options;
    const { genesisHash, seq, head } = this.authority(size);
    const root = hex(merkleRoot(nodeVerifier, this.#leaves.slice(0, size)));
    const origin = checkpointOrigin(genesisHash);
    return signCheckpoint(
      nodeVerifier,
      { origin, size, root, authority: { seq, head }, time },
      signer,
    );
  }

  async inclusion(index: number, size = this.size): Promise<LogInclusion> {
    const proof = await inclusionProof(nodeVerifier, { index, size }, this.#readNode);
    const leaf = this.#leaves[index] ?? new Uint8Array();
    return { index, size, leafHash: hex(leaf), proof: proof.map(hex) };
  }

  async consistency(from: number, to = this.size): Promise<LogConsistency> {
    const proof = await consistencyProof(nodeVerifier, { from, to }, this.#readNode);
    return { from, to, proof: proof.map(hex) };
  }

  readonly #readNode: ReadNode = (level, index) =>
    merkleRoot(nodeVerifier, this.#leaves.slice(index * 2 ** level, (index + 1) * 2 ** level));
}
