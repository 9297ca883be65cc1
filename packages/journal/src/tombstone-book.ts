import { assertMayCancel, HyphaError } from '@hypha/protocol';
import type { Store } from '@hypha/store';
import { JOURNAL_LIMITS } from './journal-limits.ts';
import type { JournalTables } from './journal-schema.ts';
import type { PlannedChange } from './record-book.ts';

/** An accepted cancel of work that is not here yet. Times as their names say. */
export interface Tombstone {
  /** Digest of the script envelope it ends. */
  readonly target: string;
  readonly realm: string;
  /** Who signed the cancel. */
  readonly keyids: readonly string[];
  /** They may cancel what others signed. */
  readonly mayCancelAny: boolean;
  readonly requestedAt: number;
  /** What `Cancellation` says of it. */
  readonly forgetAtSeconds: number;
}

interface PlannedForgetting extends PlannedChange {
  /** Greatest `forgetAtSeconds` of what is forgotten; 0 when nothing is. */
  readonly newestSeconds: number;
}

/**
 * Cancels that overtook what they cancel (G6). In memory too, so that admission asks nothing of the store.
 * Full is an error and never a loss: an accepted cancel is kept until its target is admitted no more.
 */
export class TombstoneBook {
  readonly #store: Store<JournalTables>;
  // target → realm and signers → the cancel
  readonly #tombstones = new Map<string, Map<string, Tombstone>>();
  // keyid → how many it has
  readonly #counts = new Map<string, number>();
  #size = 0;

  private constructor(store: Store<JournalTables>) {
    this.#store = store;
  }

  static async open(store: Store<JournalTables>): Promise<TombstoneBook> {
    const book = new TombstoneBook(store);
    for (const row of await store.db.selectFrom('tombstone').selectAll().execute()) {
      const keyids = JSON.parse(row.keyids) as string[];
      book.#set({ ...row, keyids, mayCancelAny: row.mayCancelAny === 1 });
    }
    return book;
  }

  /** The cancel of this work by someone who may cancel it. */
  find(target: {
    readonly digest: string;
    readonly realm: string;
    readonly keyids: readonly string[];
  }): Tombstone | undefined {
    const known = [...(this.#tombstones.get(target.digest)?.values() ?? [])];
    return known.find((tombstone) => mayCancel(tombstone, target));
  }

  /**
   * Keeps a cancel, durably when it resolves. False when it says nothing new. Throws `E_RATE` when its signers,
   * or this node, keep as many as they may.
   */
  async put(wanted: Tombstone): Promise<boolean> {
    const known = this.#tombstones.get(wanted.target)?.get(keyOf(wanted));
    const tombstone = known === undefined ? wanted : unite(known, wanted);
    if (known === undefined) this.#demandRoom(wanted);
    else if (tombstone === known) return false;
    // Counted before it is durable, so that many at once stay within the bound.
    this.#set(tombstone);
    try {
      await this.#store.write([{ query: this.#upsert(tombstone) }]);
    } catch (error) {
      if (known === undefined) this.#drop(tombstone);
      else this.#set(known);
      throw error;
    }
    return known === undefined;
  }

  /** Those whose time is over. */
  planForget(nowSeconds: number): PlannedForgetting {
    const before = nowSeconds - JOURNAL_LIMITS.replayGraceSeconds;
    const query = this.#store.db.deleteFrom('tombstone').where('forgetAtSeconds', '<', before);
    const listOver = () =>
      [...this.#tombstones.values()]
        .flatMap((known) => [...known.values()])
        .filter(({ forgetAtSeconds }) => forgetAtSeconds < before);
    return {
      writes: [{ query }],
      newestSeconds: Math.max(0, ...listOver().map(({ forgetAtSeconds }) => forgetAtSeconds)),
      apply: () => {
        for (const tombstone of listOver()) this.#drop(tombstone);
      },
    };
  }

  #demandRoom({ target, keyids }: Tombstone): void {
    const isFull =
      this.#size >= JOURNAL_LIMITS.tombstonesMax ||
      keyids.some((keyid) => (this.#counts.get(keyid) ?? 0) >= JOURNAL_LIMITS.tombstonesPerKeyMax);
    if (!isFull) return;
    throw new HyphaError('E_RATE', `cannot keep the cancel of ${target}: too many are kept`, {
      hint: 'cancel it again once the work has reached the node',
    });
  }

  #upsert({ mayCancelAny, keyids, ...rest }: Tombstone) {
    const row = { ...rest, keyids: listOf(keyids), mayCancelAny: Number(mayCancelAny) };
    return this.#store.db
      .insertInto('tombstone')
      .values(row)
      .onConflict((known) => known.columns(['target', 'realm', 'keyids']).doUpdateSet(row));
  }

  #set(tombstone: Tombstone): void {
    const { target, keyids } = tombstone;
    const known = this.#tombstones.get(target) ?? new Map<string, Tombstone>();
    if (!known.has(keyOf(tombstone))) this.#count(keyids, 1);
    this.#tombstones.set(target, known.set(keyOf(tombstone), tombstone));
  }

  #drop(tombstone: Tombstone): void {
    const { target, keyids } = tombstone;
    const known = this.#tombstones.get(target);
    if (known?.delete(keyOf(tombstone)) === true) this.#count(keyids, -1);
    if (known?.size === 0) this.#tombstones.delete(target);
  }

  #count(keyids: readonly string[], change: 1 | -1): void {
    this.#size += change;
    for (const keyid of keyids) {
      const count = (this.#counts.get(keyid) ?? 0) + change;
      if (count === 0) this.#counts.delete(keyid);
      else this.#counts.set(keyid, count);
    }
  }
}

function mayCancel(
  { target, realm, keyids, mayCancelAny }: Tombstone,
  script: { readonly realm: string; readonly keyids: readonly string[] },
): boolean {
  try {
    assertMayCancel({ payload: { id: target, realm }, keyids, mayCancelAny }, script);
    return true;
  } catch {
    return false;
  }
}

/** The first says when; whichever reaches further says how far. Returns `known` itself when that is all of it. */
function unite(known: Tombstone, again: Tombstone): Tombstone {
  const mayCancelAny = known.mayCancelAny || again.mayCancelAny;
  const forgetAtSeconds = Math.max(known.forgetAtSeconds, again.forgetAtSeconds);
  const isSame = mayCancelAny === known.mayCancelAny && forgetAtSeconds === known.forgetAtSeconds;
  return isSame ? known : { ...known, mayCancelAny, forgetAtSeconds };
}

const listOf = (keyids: readonly string[]) => JSON.stringify([...keyids].sort());
const keyOf = ({ realm, keyids }: Tombstone) => `${realm} ${listOf(keyids)}`;
