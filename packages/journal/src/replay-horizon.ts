import { HyphaError, LIMITS, type ScriptPayload } from '@hypha/protocol';
import type { Store } from '@hypha/store';
import { JOURNAL_LIMITS } from './journal-limits.ts';
import type { JournalTables } from './journal-schema.ts';
import type { TombstoneBook } from './tombstone-book.ts';

interface Stored {
  readonly createdAt: number;
  readonly dated: number;
  readonly forgottenSeconds: number;
  readonly forgottenCancelSeconds: number;
}

/**
 * How far back this journal can tell what has run here. What may have run before it began, or was forgotten
 * since, is refused, whatever the clock says at that moment: a clock that jumped may jump back.
 */
export class ReplayHorizon {
  readonly #store: Store<JournalTables>;
  readonly #tombstones: TombstoneBook;
  #stored: Stored;

  private constructor(store: Store<JournalTables>, tombstones: TombstoneBook, stored: Stored) {
    this.#store = store;
    this.#tombstones = tombstones;
    this.#stored = stored;
  }

  static async open(
    store: Store<JournalTables>,
    tombstones: TombstoneBook,
  ): Promise<ReplayHorizon> {
    const stored = await store.db
      .selectFrom('meta')
      .select(['createdAt', 'dated', 'forgottenSeconds', 'forgottenCancelSeconds'])
      .executeTakeFirstOrThrow();
    return new ReplayHorizon(store, tombstones, stored);
  }

  /** Whether its beginning was compared with a clock that can be trusted. Nothing is to be admitted before. */
  get isDated(): boolean {
    return this.#stored.dated === 1;
  }

  /**
   * Says when the journal began, epoch milliseconds, by a clock that can be trusted and counted from there. Only
   * the first call counts. The clock it was made under stands where the two agree.
   */
  async date(beganMs: number): Promise<void> {
    if (this.isDated) return;
    const { createdAt } = this.#stored;
    const agree = Math.abs(createdAt - beganMs) <= LIMITS.skewSeconds * 1000;
    await this.#write({ dated: 1, createdAt: agree ? createdAt : Math.round(beganMs) });
  }

  /**
   * Forgets what expired for good by a time that never goes back, epoch seconds, and the cancels of what
   * did. Durable with the forgetting: what expired before is refused from then on, and so is what these cancels
   * may have been for.
   */
  async forget(nowSeconds: number): Promise<void> {
    const forgottenSeconds = Math.max(this.#stored.forgottenSeconds, nowSeconds);
    const { db } = this.#store;
    const tombstones = this.#tombstones.planForget(forgottenSeconds);
    const { newestSeconds } = tombstones;
    const before = this.#stored.forgottenCancelSeconds;
    const forgottenCancelSeconds = Math.max(before, newestSeconds);
    await this.#write({ forgottenSeconds, forgottenCancelSeconds }, [
      { query: db.deleteFrom('replay').where('keepUntilSeconds', '<', forgottenSeconds) },
      ...tombstones.writes,
    ]);
    tombstones.apply();
  }

  /** @throws HyphaError `E_REPLAY`, `E_EXPIRED` */
  check({ id, iat, exp }: ScriptPayload): void {
    const { createdAt, forgottenSeconds, forgottenCancelSeconds } = this.#stored;
    if (exp + JOURNAL_LIMITS.replayGraceSeconds < forgottenSeconds) {
      throw new HyphaError(
        'E_EXPIRED',
        `${id} expired at ${exp}, and what expired then is forgotten here`,
        {
          where: { path: 'exp' },
        },
      );
    }
    // Its cancel would have been kept for this long at least, however late `nbf` is.
    if (iat + LIMITS.lifetimeSecondsMax <= forgottenCancelSeconds) {
      throw new HyphaError(
        'E_EXPIRED',
        `${id} was signed at ${iat}, and cancels of what was signed then are forgotten here`,
        { where: { path: 'iat' }, hint: 'sign again, closer to when it is to run' },
      );
    }
    if (iat >= Math.floor(createdAt / 1000)) return;
    const began = new Date(createdAt).toISOString();
    throw new HyphaError(
      'E_REPLAY',
      `${id} was signed before this node's journal began at ${began}`,
      {
        where: { path: 'iat' },
        hint: 'sign again; if this is unexpected, compare the clocks of signer and node',
      },
    );
  }

  async #write(
    change: Partial<Stored>,
    others: Parameters<Store<JournalTables>['write']>[0] = [],
  ): Promise<void> {
    const query = this.#store.db.updateTable('meta').set(change).where('id', '=', 1);
    await this.#store.write([{ query, expectRows: 1 }, ...others]);
    this.#stored = { ...this.#stored, ...change };
  }
}
