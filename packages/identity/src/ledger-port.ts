import type { AuthorityPage, Envelope, LogEntry, NodeView, Page } from '@hypha/protocol';

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
  /** One page of admissions or enrolments that name this node, oldest first. */
  listEntries(
    query: {
      readonly kind: 'admission' | 'enrol';
      readonly node: string;
      readonly cursor?: string;
    },
    options?: Cancellable,
  ): Promise<Page<LogEntry>>;
}

/** What proves that something stands in the log. */
export interface LogProofs {
  /** C2SP note of the newest head. */
  checkpoint(options?: Cancellable): Promise<{ readonly checkpoint: string }>;
  /** Siblings in hex, lowest first. */
  inclusion(
    query: { readonly digest: string; readonly size: number },
    options?: Cancellable,
  ): Promise<{ readonly index: number; readonly proof: readonly string[] }>;
}
