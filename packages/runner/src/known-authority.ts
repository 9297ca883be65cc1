import { Authority, type Envelope, type Verifier } from '@hypha/protocol';

/**
 * The authority as this runner has replayed it itself, from the chains that came with its runs. What was
 * replayed once is compared, not verified again, so a run costs the same however long the chain is. It
 * only grows: a chain that ends earlier takes back no revocation.
 */
export class KnownAuthority {
  readonly #verifier: Verifier;
  #newest: Authority | undefined;

  constructor(verifier: Verifier) {
    this.#verifier = verifier;
  }

  /**
   * The newest state that is known with this chain, genesis first. Throws the codes of `Authority.extend`, also
   * for the chain of another fleet; what was known before stays known.
   */
  follow(chain: readonly Envelope[]): Authority {
    this.#newest = this.#newest?.extend(chain) ?? Authority.replay(this.#verifier, chain);
    return this.#newest;
  }
}
