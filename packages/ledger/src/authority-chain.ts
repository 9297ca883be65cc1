import {
  Authority,
  type AuthorityPage,
  AuthorityPayload,
  type Envelope,
  envelopeDigest,
  fromBase64,
  HyphaError,
  LIMITS,
  parseJsonAs,
  type Verifier,
} from '@hypha/protocol';
import type { Store, Write } from '@hypha/store';
import type { LedgerDb } from './ledger-schema.ts';
import { LogDamage } from './log-damage.ts';
import { type LogEntries, parseStoredEnvelope } from './log-entries.ts';

interface Deps {
  readonly store: Store<LedgerDb>;
  readonly entries: LogEntries;
  readonly verifier: Verifier;
  readonly nowMs: () => number;
}

/**
 * The authority as this ledger serves it. The chain decides by itself what is valid; the ledger only keeps
 * the order in which updates arrived: of two that follow the same head, the first stored wins.
 */
export class AuthorityChain {
  readonly #deps: Deps;
  #current: Authority;
  #last: Promise<unknown> = Promise.resolve();

  private constructor(deps: Deps, current: Authority) {
    this.#deps = deps;
    this.#current = current;
  }

  /**
   * Replays the stored chain, or begins it with `genesis`.
   * @throws LogDamage when an update in the log is not the next link of the chain
   * @throws HyphaError `E_AUTHORITY` when there is neither, or `genesis` is not the stored one
   */
  static async open(deps: Deps, genesis: Envelope | undefined): Promise<AuthorityChain> {
    const rows = await deps.store.db
      .selectFrom('entries')
      .leftJoin('authority_updates', 'authority_updates.position', 'entries.position')
      .select(['entries.position', 'envelope', 'seq'])
      .where('kind', '=', 'authority')
      .orderBy('entries.position')
      .execute();
    const loose = rows.find(({ seq }, index) => seq !== index);
    if (loose !== undefined)
      throw new LogDamage(`entry ${loose.position} is not the next link of the authority chain`);
    const stored = rows.map(({ envelope }) => parseStoredEnvelope(envelope));
    if (stored.length > 0) {
      const current = Authority.replay(deps.verifier, stored);
      // Refuses a genesis of another fleet before anything is served.
      if (genesis !== undefined) {
        Authority.fromGenesis(deps.verifier, genesis, current.genesisHash);
      }
      return new AuthorityChain(deps, current);
    }
    if (genesis === undefined) {
      throw new HyphaError('E_AUTHORITY', 'cannot start a ledger without a genesis', {
        hint: 'name one with --genesis FILE: hypha authority init makes it',
      });
    }
    const current = Authority.fromGenesis(deps.verifier, genesis);
    const chain = new AuthorityChain(deps, current);
    await deps.store.write(chain.#appendWrites(genesis, current));
    return chain;
  }

  get current(): Authority {
    return this.#current;
  }

  /** Updates behind `since`, oldest first, at most one page. */
  page(since: number): AuthorityPage {
    const { updates, seq, head } = this.#current;
    const start = since + 1;
    return {
      items: updates.slice(start, start + LIMITS.authorityUpdatesMax),
      head: { seq, hash: head },
    };
  }

  /**
   * Durable when it resolves with the new head. An update the chain has already is answered alike.
   * @throws HyphaError the codes of `Authority.apply`: `E_AUTHORITY` for one that came second
   */
  append(envelope: Envelope): Promise<AuthorityPage['head']> {
    // One at a time: each is judged against the state that the one before it left.
    return this.whileSettled(() => this.#appendNext(envelope));
  }

  /** Runs `work` while no update is being appended; the next ones wait for it. */
  whileSettled<T>(work: (current: Authority) => Promise<T>): Promise<T> {
    const done = this.#last.then(() => work(this.#current));
    this.#last = done.catch(() => undefined);
    return done;
  }

  /** A write that changes nothing, and fails its list when the stored chain has grown beyond `judgedUnder`. */
  unchangedWrite({ seq }: Authority): Write {
    const { db } = this.#deps.store;
    return {
      query: db.selectFrom('authority_updates').select('seq').where('seq', '>', seq).limit(1),
      expectRows: 0,
    };
  }

  async #appendNext(envelope: Envelope): Promise<AuthorityPage['head']> {
    const { store, entries, verifier, nowMs } = this.#deps;
    const digest = envelopeDigest(verifier, envelope, 'authority');
    if ((await entries.findByDigest(digest)) === undefined) {
      const nowSeconds = Math.floor(nowMs() / 1000);
      const next = this.#current.apply(envelope, { nowSeconds });
      await store.write(this.#appendWrites(envelope, next));
      this.#current = next;
    }
    return { seq: this.#current.seq, hash: this.#current.head };
  }

  /** The entry, its place in the chain, and what the nodes table has to know of it. */
  #appendWrites(envelope: Envelope, next: Authority): Write[] {
    const { store, entries, nowMs } = this.#deps;
    const { seq, head: digest } = next;
    const revokedNode = revokedNodeOf(envelope);
    return [
      ...entries.appendWrites({ kind: 'authority', digest, envelope, at: nowMs() }),
      {
        query: store.db
          .insertInto('authority_updates')
          .columns(['seq', 'position'])
          .expression((query) =>
            query
              .selectFrom('entries')
              .select(({ val }) => [val(seq).as('seq'), 'position'])
              .where('digest', '=', digest),
          ),
        expectRows: 1,
      },
      ...(revokedNode === undefined
        ? []
        : [
            {
              query: store.db
                .updateTable('nodes')
                .set({ revoked: 1 })
                .where('id', '=', revokedNode),
            },
          ]),
    ];
  }
}

/** Of an update that `Authority` has accepted. */
function revokedNodeOf(envelope: Envelope): string | undefined {
  const { change } = parseJsonAs(AuthorityPayload, fromBase64(envelope.payload), {
    code: 'E_PAYLOAD',
    what: 'the authority update',
  });
  return change.type === 'revoke-node' ? change.node : undefined;
}
