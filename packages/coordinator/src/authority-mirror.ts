import { Authority, type Envelope, HyphaError, type Verifier } from '@hypha/protocol';
import type { Store } from '@hypha/store';
import type { CoordinatorDb } from './schema.ts';

/**
 * The authority chain as far as this coordinator knows it, kept in its store. It only grows: whoever
 * brings updates (the ledger, a submission that staples them), each is verified before it is kept.
 */
export class AuthorityMirror {
  readonly #store: Store<CoordinatorDb>;
  readonly #verifier: Verifier;
  readonly #pinnedGenesis: string | undefined;
  readonly #onGrown: (authority: Authority, added: readonly Envelope[]) => void;
  #authority: Authority | undefined;
  /** One growth at a time, so that two bringers of the same update do not look like a fork. */
  #growing: Promise<unknown> = Promise.resolve();

  private constructor(deps: AuthorityMirrorDeps, authority: Authority | undefined) {
    this.#store = deps.store;
    this.#verifier = deps.verifier;
    this.#pinnedGenesis = deps.pinnedGenesis;
    this.#onGrown = deps.onGrown;
    this.#authority = authority;
  }

  /** Throws `E_AUTHORITY` when the stored chain does not start at the pinned genesis. */
  static async open(deps: AuthorityMirrorDeps): Promise<AuthorityMirror> {
    const rows = await deps.store.db
      .selectFrom('authority_updates')
      .select('envelope')
      .orderBy('seq')
      .execute();
    const chain = rows.map(({ envelope }) => JSON.parse(envelope) as Envelope);
    const authority =
      chain.length === 0 ? undefined : Authority.replay(deps.verifier, chain, deps.pinnedGenesis);
    return new AuthorityMirror(deps, authority);
  }

  /** Seq of the newest update known, -1 before genesis. */
  get seq(): number {
    return this.#authority?.seq ?? -1;
  }

  find(): Authority | undefined {
    return this.#authority;
  }

  /** Throws `E_UNAVAILABLE` until a genesis is known. */
  get(): Authority {
    if (this.#authority !== undefined) return this.#authority;
    throw new HyphaError('E_UNAVAILABLE', 'cannot verify anything: no authority is known yet', {
      hint: 'start the ledger and make a genesis: hypha authority init',
    });
  }

  /**
   * Verifies and keeps updates; those already known are skipped. Durable when it resolves.
   * Throws the codes of `Authority.extend`, and changes nothing then.
   */
  grow(updates: readonly Envelope[]): Promise<void> {
    const grown = this.#growing.then(() => this.#grow(updates));
    this.#growing = grown.catch(() => undefined);
    return grown;
  }

  /** `grow`, for updates a submitter stapled: they may never choose the genesis. */
  async growFromStaple(updates: readonly Envelope[]): Promise<void> {
    if (this.#authority === undefined && this.#pinnedGenesis === undefined) return;
    await this.grow(updates);
  }

  async #grow(updates: readonly Envelope[]): Promise<void> {
    const next = this.#extend(updates);
    const before = this.seq;
    if (next === undefined || next.seq === before) return;
    const added = next.updates.slice(before + 1);
    await this.#store.write(
      added.map((envelope, index) => ({
        query: this.#store.db.insertInto('authority_updates').values({
          seq: before + 1 + index,
          digest: next.hashAt(before + 1 + index) ?? '',
          envelope: JSON.stringify(envelope),
        }),
        expectRows: 1,
      })),
    );
    this.#authority = next;
    this.#onGrown(next, added);
  }

  #extend(updates: readonly Envelope[]): Authority | undefined {
    if (this.#authority !== undefined) return this.#authority.extend(updates);
    if (updates.length === 0) return undefined;
    return Authority.replay(this.#verifier, updates, this.#pinnedGenesis);
  }
}

export interface AuthorityMirrorDeps {
  readonly store: Store<CoordinatorDb>;
  readonly verifier: Verifier;
  /** Digest the chain has to start with; without one the first genesis seen is kept. */
  readonly pinnedGenesis: string | undefined;
  readonly onGrown: (authority: Authority, added: readonly Envelope[]) => void;
}
