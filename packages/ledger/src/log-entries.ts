import {
  canonicalJson,
  Envelope,
  hex,
  type LogEntry,
  leafHash,
  type Page,
  utf8,
  type Verifier,
} from '@hypha/protocol';
import type { Store, Write } from '@hypha/store';
import { sql } from 'kysely';
import { LEDGER_LIMITS } from './ledger-limits.ts';
import { type EntryKind, type LedgerDb, ROW_HASH } from './ledger-schema.ts';
import type { LogTree } from './log-tree.ts';

export interface NewEntry {
  readonly kind: EntryKind;
  readonly digest: string;
  readonly envelope: Envelope;
  readonly at: number;
  readonly run?: string;
  readonly node?: string;
}

export interface EntryQuery {
  readonly kind?: EntryKind | undefined;
  readonly run?: string | undefined;
  readonly node?: string | undefined;
  /** Only entries behind this one. */
  readonly after: number;
  readonly limit: number;
}

/** The append-only sequence of everything the ledger vouches for. */
export class LogEntries {
  readonly #store: Store<LedgerDb>;
  readonly #tree: LogTree;
  readonly #verifier: Verifier;

  constructor(deps: {
    readonly store: Store<LedgerDb>;
    readonly tree: LogTree;
    readonly verifier: Verifier;
  }) {
    this.#store = deps.store;
    this.#tree = deps.tree;
    this.#verifier = deps.verifier;
  }

  /**
   * Writes that append at the next position, for a list with what the entry changes. The first one's row is
   * `{position}`. The whole list fails with `StoreConflict` when the digest is there already.
   */
  appendWrites(entry: NewEntry): readonly Write[] {
    const { kind, digest, at, run = null, node = null } = entry;
    const envelope = canonicalJson(entry.envelope);
    const append: Write = {
      query: this.#store.db
        .insertInto('entries')
        .columns(['position', 'at', 'kind', 'digest', 'envelope', 'run', 'node'])
        .expression((query) =>
          query
            .selectFrom('entries')
            .select(({ fn }) => [
              sql<number>`coalesce(${fn.max('position')}, -1) + 1`.as('position'),
              sql.val(at).as('at'),
              sql.val(kind).as('kind'),
              sql.val(digest).as('digest'),
              sql.val(envelope).as('envelope'),
              sql.val(run).as('run'),
              sql.val(node).as('node'),
            ]),
        )
        .returning('position'),
      expectRows: 1,
    };
    const seal: Write = {
      query: this.#store.db
        .updateTable('entries')
        .set({ row_hash: sql.raw(ROW_HASH) })
        .where('digest', '=', digest),
      expectRows: 1,
    };
    return [append, seal, this.#tree.growWrite(digest)];
  }

  async findByDigest(digest: string): Promise<{ position: number; kind: EntryKind } | undefined> {
    return await this.#store.db
      .selectFrom('entries')
      .select(['position', 'kind'])
      .where('digest', '=', digest)
      .executeTakeFirst();
  }

  /** Oldest first. A page is cut where its envelopes would get too large for one answer. */
  async list(query: EntryQuery): Promise<Page<LogEntry>> {
    const sizes = await this.#matching(query)
      .select(['position', sql<number>`length(envelope)`.as('bytes')])
      .limit(query.limit + 1)
      .execute();
    let bytes = 0;
    let count = 0;
    for (const size of sizes.slice(0, query.limit)) {
      bytes += size.bytes;
      if (count > 0 && bytes > LEDGER_LIMITS.entryPageBytes) break;
      count++;
    }
    const last = sizes[count - 1];
    if (last === undefined) return { items: [], nextCursor: null };
    const rows = await this.#matching(query)
      .select(['position', 'at', 'kind', 'digest', 'envelope'])
      .where('position', '<=', last.position)
      .execute();
    return {
      items: rows.map(({ position, at, kind, digest, envelope }) => ({
        index: position,
        at,
        kind,
        digest,
        envelope: parseStoredEnvelope(envelope),
        leafHash: hex(leafHash(this.#verifier, utf8(envelope))),
      })),
      nextCursor: count < sizes.length ? String(last.position) : null,
    };
  }

  #matching({ kind, run, node, after }: EntryQuery) {
    return this.#store.db
      .selectFrom('entries')
      .where('position', '>', after)
      .$if(kind !== undefined, (query) => query.where('kind', '=', kind ?? 'authority'))
      .$if(run !== undefined, (query) => query.where('run', '=', run ?? null))
      .$if(node !== undefined, (query) => query.where('node', '=', node ?? null))
      .orderBy('position');
  }
}

/** Envelopes were verified before they were stored. */
export function parseStoredEnvelope(text: string): Envelope {
  return Envelope.parse(JSON.parse(text));
}
