import {
  type Envelope,
  hex,
  leafHash,
  nodeHash,
  openEnvelope,
  utf8,
  type Verifier,
} from '@hypha/protocol';
import type { Store } from '@hypha/store';
import { sql } from 'kysely';
import { LEDGER_LIMITS } from './ledger-limits.ts';
import { type EntryKind, type LedgerDb, ROW_HASH } from './ledger-schema.ts';
import { LogDamage } from './log-damage.ts';

interface StoredEntry {
  readonly position: number;
  readonly kind: EntryKind;
  readonly digest: string;
  readonly envelope: string;
}

/**
 * Hashes every stored entry anew and holds the result against what was stored with it: its digest, its leaf
 * and each subtree above it, its time and what it is found by. Answers the number of entries.
 * @throws LogDamage naming the first entry, or subtree, that is not what was appended
 */
export async function checkLog(store: Store<LedgerDb>, verifier: Verifier): Promise<number> {
  // Nothing can be read from pages that are none any more; entries are named before what only finds them.
  await checkFile(store, 'quick_check');
  const size = await checkTree(store, verifier);
  const changed = await store.db
    .selectFrom('entries')
    .select('position')
    .where(sql<boolean>`row_hash is not ${sql.raw(ROW_HASH)}`)
    .orderBy('position')
    .executeTakeFirst();
  if (changed !== undefined)
    throw new LogDamage(`entry ${changed.position} is not kept with the time, run and node it had`);
  await checkFile(store, 'integrity_check');
  return size;
}

/** SQLite's own check: of the pages, and with `integrity_check` of the indexes too. */
async function checkFile(
  store: Store<LedgerDb>,
  check: 'quick_check' | 'integrity_check',
): Promise<void> {
  const rows = await store.db
    .selectFrom(sql<Record<typeof check, string>>`${sql.raw(`pragma_${check}`)}`.as('checked'))
    .select(`checked.${check} as found`)
    .execute();
  const faults = rows.map(({ found }) => found).filter((found) => found !== 'ok');
  if (faults.length > 0) throw new LogDamage('the store is damaged', { evidence: faults });
}

async function checkTree(store: Store<LedgerDb>, verifier: Verifier): Promise<number> {
  const check = new TreeCheck(verifier);
  for (;;) {
    const entries = await store.db
      .selectFrom('entries')
      .select(['position', 'kind', 'digest', 'envelope'])
      .where('position', '>=', check.size)
      .orderBy('position')
      .limit(LEDGER_LIMITS.checkedEntries)
      .execute();
    const last = entries.at(-1);
    if (last === undefined) break;
    check.expect(await readNodes(store, check.size, last.position + 1));
    for (const entry of entries) check.add(entry);
  }
  const { stored } = await store.db
    .selectFrom('log_nodes')
    .select(({ fn }) => fn.countAll<number>().as('stored'))
    .executeTakeFirstOrThrow();
  const expected = countNodes(check.size);
  if (stored !== expected) {
    throw new LogDamage(`the tree over ${check.size} entries has ${stored} nodes, not ${expected}`);
  }
  return check.size;
}

/** Stored subtrees that the entries from `begin` up to and without `end` complete, by `nodeName`. */
async function readNodes(
  store: Store<LedgerDb>,
  begin: number,
  end: number,
): Promise<ReadonlyMap<string, Uint8Array>> {
  const levels = Array.from({ length: Math.floor(Math.log2(end)) + 1 }, (_, level) => level);
  const nodes = new Map<string, Uint8Array>();
  const read = async (level: number) => {
    const rows = await store.db
      .selectFrom('log_nodes')
      .select(['idx', 'hash'])
      .where('level', '=', level)
      .where('idx', '>=', Math.floor(begin / 2 ** level))
      .where('idx', '<', Math.floor(end / 2 ** level))
      .execute();
    for (const { idx, hash } of rows) nodes.set(nodeName(level, idx), hash);
  };
  await Promise.all(levels.map(read));
  return nodes;
}

class TreeCheck {
  readonly #verifier: Verifier;
  /** Per level the subtree that waits for its right neighbour. */
  readonly #waiting: Uint8Array[] = [];
  #stored: ReadonlyMap<string, Uint8Array> = new Map();
  #size = 0;

  constructor(verifier: Verifier) {
    this.#verifier = verifier;
  }

  get size(): number {
    return this.#size;
  }

  expect(stored: ReadonlyMap<string, Uint8Array>): void {
    this.#stored = stored;
  }

  add(entry: StoredEntry): void {
    const index = this.#size;
    if (entry.position !== index) throw new LogDamage(`entry ${index} is missing`);
    let hash = leafHash(this.#verifier, utf8(entry.envelope));
    const stored = this.#stored.get(nodeName(0, index));
    if (!isSame(hash, stored)) {
      throw new LogDamage(`entry ${index} is not what was appended`, {
        evidence: [
          `leaf stored:   ${stored === undefined ? '(none)' : hex(stored)}`,
          `leaf computed: ${hex(hash)}`,
          `entry stored:  ${JSON.stringify(entry.envelope)}`,
        ],
      });
    }
    this.#checkDigest(entry);
    let [level, idx] = [0, index];
    for (; idx % 2 === 1; level++) {
      hash = nodeHash(this.#verifier, this.#waiting[level] ?? hash, hash);
      idx = (idx - 1) / 2;
      this.#checkNode(level + 1, idx, hash);
    }
    this.#waiting[level] = hash;
    this.#size++;
  }

  #checkDigest({ position, kind, digest, envelope }: StoredEntry): void {
    let found: string;
    try {
      // Its leaf holds, so it is the envelope that was verified when it was appended.
      found = openEnvelope(this.#verifier, JSON.parse(envelope) as Envelope, kind).digest;
    } catch (cause) {
      throw new LogDamage(`entry ${position} is kept as ${kind} and is none`, { cause });
    }
    if (found === digest) return;
    throw new LogDamage(`entry ${position} is kept under the digest of another`, {
      evidence: [`digest stored:   ${digest}`, `digest computed: ${found}`],
    });
  }

  #checkNode(level: number, idx: number, hash: Uint8Array): void {
    const stored = this.#stored.get(nodeName(level, idx));
    if (isSame(hash, stored)) return;
    const begin = idx * 2 ** level;
    throw new LogDamage(
      `the tree over entries ${begin} to ${begin + 2 ** level - 1} is not that of these entries`,
      {
        evidence: [
          `node stored:   ${stored === undefined ? '(none)' : hex(stored)}`,
          `node computed: ${hex(hash)}`,
        ],
      },
    );
  }
}

function nodeName(level: number, idx: number): string {
  return `${level}/${idx}`;
}

/** Complete subtrees of a tree, leaves included. */
function countNodes(size: number): number {
  let count = 0;
  for (let level = size; level > 0; level = Math.floor(level / 2)) count += level;
  return count;
}

function isSame(a: Uint8Array, b: Uint8Array | undefined): boolean {
  return b !== undefined && Buffer.compare(a, b) === 0;
}
