import type { AuthorityPage, Envelope, NodeView } from '@hypha/protocol';

interface Cancellable {
  readonly signal?: AbortSignal;
}

/** What a node needs of its ledger; `LedgerClient` of `@hypha/client` is one. */
export interface LedgerPort {
  /** A challenge for one enrolment, good for a minute. */
  challenge(options?: Cancellable): Promise<{ readonly challenge: string }>;
  /** The same key again gets the same record. */
  enrol(envelope: Envelope, options?: Cancellable): Promise<NodeView>;
  /** Takes reports, oldest first; answers the newest seq the ledger has of this node. */
  report(
    node: string,
    reports: readonly Envelope[],
    options?: Cancellable,
  ): Promise<{ readonly seq: number }>;
  /** One page of updates behind `since`, oldest first; all from genesis without it. */
  authority(query?: { since?: number }, options?: Cancellable): Promise<AuthorityPage>;
}
