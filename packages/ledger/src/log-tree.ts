import {
  consistencyProof,
  HyphaError,
  hex,
  inclusionProof,
  type LogConsistency,
  type LogInclusion,
  type ReadNode,
  rootAt,
  type Verifier,
} from '@hypha/protocol';
import type { Store, Write } from '@hypha/store';
import { sql } from 'kysely';
import type { LedgerDb } from './ledger-schema.ts';

interface Deps {
  readonly store: Store<LedgerDb>;
  readonly verifier: Verifier;
}

/**
 * The Merkle tree over the entries (RFC 9162). Grown by SQL inside the write that appends the entry, because
 * only there, in the order of the commits, is the entry's position known. Reads are answered once what
 * they show is durable, and nothing at or below a size ever changes: whatever size was read first, root and
 * proofs for it hold together.
 */
export class LogTree {
  readonly #deps: Deps;

  constructor(deps: Deps) {
    this.#deps = deps;
  }

  /** Goes into one list with the entry's own write, behind it: its leaf and every subtree it completes. */
  growWrite(digest: string): Write {
    const grow = sql`
      with recursive grown (level, idx, hash) as (
        select 0, position, sha256_concat(x'00', cast(envelope as blob))
        from entries where digest = ${digest}
        union all
        select level + 1, idx / 2, sha256_concat(
          x'01',
          (select l.hash from log_nodes l where l.level = grown.level and l.idx = grown.idx - 1),
          hash
        )
        from grown where idx % 2 = 1
      )
      insert into log_nodes (level, idx, hash) select level, idx, hash from grown`;
    return { query: { compile: () => grow.compile(this.#deps.store.db) } };
  }

  /** Number of entries. */
  async size(): Promise<number> {
    const { last } = await this.#deps.store.db
      .selectFrom('entries')
      .select(({ fn }) => fn.max<number | null>('position').as('last'))
      .executeTakeFirstOrThrow();
    return (last ?? -1) + 1;
  }

  /** Root over the first `size` entries, which have to be there. */
  async rootAt(size: number): Promise<Uint8Array> {
    return await rootAt(this.#deps.verifier, size, this.#readNode);
  }

  /**
   * @param query.size of the tree to prove it in; the newest without it
   * @throws HyphaError `E_NOT_FOUND` when there is no such entry, or not below that size
   */
  async inclusion(query: {
    readonly digest?: string | undefined;
    readonly index?: number | undefined;
    readonly size?: number | undefined;
  }): Promise<LogInclusion> {
    const index = query.index ?? (await this.#positionOf(query.digest ?? ''));
    const size = await this.#sizeUpTo(query.size);
    if (index >= size) {
      throw new HyphaError('E_NOT_FOUND', `entry ${index} is not among the first ${size}`, {
        where: { path: 'query.size' },
      });
    }
    const [leaf, proof] = await Promise.all([
      this.#readNode(0, index),
      inclusionProof(this.#deps.verifier, { index, size }, this.#readNode),
    ]);
    return { index, size, leafHash: hex(leaf), proof: proof.map(hex) };
  }

  /** Throws `E_NOT_FOUND` when the log has fewer than `to` entries. */
  async consistency(from: number, to: number): Promise<LogConsistency> {
    if (from > to) {
      throw new HyphaError('E_REQUEST', `a log of ${to} entries cannot extend one of ${from}`, {
        where: { path: 'query.from' },
      });
    }
    await this.#sizeUpTo(to);
    const proof = await consistencyProof(this.#deps.verifier, { from, to }, this.#readNode);
    return { from, to, proof: proof.map(hex) };
  }

  readonly #readNode: ReadNode = async (level, idx) => {
    const { hash } = await this.#deps.store.db
      .selectFrom('log_nodes')
      .select('hash')
      .where('level', '=', level)
      .where('idx', '=', idx)
      .executeTakeFirstOrThrow();
    return hash;
  };

  async #positionOf(digest: string): Promise<number> {
    const row = await this.#deps.store.db
      .selectFrom('entries')
      .select('position')
      .where('digest', '=', digest)
      .executeTakeFirst();
    if (row !== undefined) return row.position;
    throw new HyphaError('E_NOT_FOUND', `no entry has the digest ${digest}`, {
      where: { path: 'query.digest' },
    });
  }

  async #sizeUpTo(wanted: number | undefined): Promise<number> {
    const size = await this.size();
    if (wanted === undefined || wanted <= size) return wanted ?? size;
    throw new HyphaError('E_NOT_FOUND', `the log has ${size} entries, not ${wanted}`, {
      hint: 'ask for a size of a checkpoint of this ledger',
    });
  }
}
