import {
  AuthorityHead,
  AuthorityPage,
  type Envelope,
  GenesisAnswer,
  LogAppended,
  LogCheckpoint,
  LogConsistency,
  LogEntry,
  LogInclusion,
  LogKey,
  NodeView,
  Nonce,
  type Page,
  pageOf,
} from '@hypha/protocol';
import { z } from 'zod';
import { apiPath, HyphaClient, type HyphaClientOptions } from './hypha-client.ts';
import type { PageQuery } from './page-query.ts';
import type { Cancellable } from './runs-client.ts';

/** `POST /v1/nodes/challenge`: good for one enrolment, until `expiresAt` (epoch milliseconds). */
export const Challenge = z.object({ challenge: Nonce, expiresAt: z.int() });
export type Challenge = z.infer<typeof Challenge>;

/** `POST /v1/nodes/:id/reports`: the newest report the ledger now holds. */
export const ReportsAccepted = z.object({ seq: z.int() });
export type ReportsAccepted = z.infer<typeof ReportsAccepted>;

export interface NodeQuery extends PageQuery {
  /** All must match. */
  readonly labels?: Readonly<Record<string, string>> | undefined;
  readonly state?: NodeView['state'] | undefined;
}

const NodePage = pageOf(NodeView);
const EntryPage = pageOf(LogEntry);

/** The ledger's API (design §9). */
export class LedgerClient {
  readonly http: HyphaClient;

  constructor(options: HyphaClientOptions | HyphaClient) {
    this.http = options instanceof HyphaClient ? options : new HyphaClient(options);
  }

  genesis(options: Cancellable = {}): Promise<GenesisAnswer> {
    return this.http.request({
      method: 'GET',
      path: '/v1/genesis',
      answer: GenesisAnswer,
      ...options,
    });
  }

  /** Updates after `since` (a seq; all without it), oldest first, at most one page. */
  authority(query: { since?: number } = {}, options: Cancellable = {}): Promise<AuthorityPage> {
    return this.http.request({
      method: 'GET',
      path: '/v1/authority',
      query: { since: query.since },
      answer: AuthorityPage,
      ...options,
    });
  }

  /** Answers the new head. `E_AUTHORITY` when another update came first. */
  appendAuthority(
    envelope: Envelope,
    options: Cancellable = {},
  ): Promise<z.infer<typeof AuthorityHead>> {
    return this.http.request({
      method: 'POST',
      path: '/v1/authority',
      body: { envelope },
      answer: AuthorityHead,
      ...options,
    });
  }

  challenge(options: Cancellable = {}): Promise<Challenge> {
    return this.http.request({
      method: 'POST',
      path: '/v1/nodes/challenge',
      answer: Challenge,
      ...options,
    });
  }

  /** Sends a signed enrol statement. The same key again gets the same record. */
  enrol(envelope: Envelope, options: Cancellable = {}): Promise<NodeView> {
    return this.http.request({
      method: 'POST',
      path: '/v1/nodes',
      body: { envelope },
      answer: NodeView,
      ...options,
    });
  }

  listNodes(query: NodeQuery = {}, options: Cancellable = {}): Promise<Page<NodeView>> {
    const { labels = {}, ...rest } = query;
    return this.http.request({
      method: 'GET',
      path: '/v1/nodes',
      query: { ...rest, label: Object.entries(labels).map(([key, value]) => `${key}=${value}`) },
      answer: NodePage,
      ...options,
    });
  }

  node(id: string, options: Cancellable = {}): Promise<NodeView> {
    return this.http.request({
      method: 'GET',
      path: apiPath`/v1/nodes/${id}`,
      answer: NodeView,
      ...options,
    });
  }

  /** A batch of signed reports, oldest first. Reports the ledger has are skipped. */
  report(
    id: string,
    reports: readonly Envelope[],
    options: Cancellable = {},
  ): Promise<ReportsAccepted> {
    return this.http.request({
      method: 'POST',
      path: apiPath`/v1/nodes/${id}/reports`,
      body: { reports },
      answer: ReportsAccepted,
      ...options,
    });
  }

  /** Appends an admission or a receipt. The same envelope again is `existing: true`. */
  appendEntry(envelope: Envelope, options: Cancellable = {}): Promise<LogAppended> {
    return this.http.request({
      method: 'POST',
      path: '/v1/log/entries',
      body: { envelope },
      answer: LogAppended,
      ...options,
    });
  }

  /** Entries by index, oldest first. */
  listEntries(
    query: PageQuery & {
      readonly kind?: 'authority' | 'admission' | 'enrol' | 'receipt';
      readonly run?: string;
      readonly node?: string;
    } = {},
    options: Cancellable = {},
  ): Promise<Page<LogEntry>> {
    return this.http.request({
      method: 'GET',
      path: '/v1/log/entries',
      query: { ...query },
      answer: EntryPage,
      ...options,
    });
  }

  /** The key that the ledger signs checkpoints with, whether or not the authority names it. */
  logKey(options: Cancellable = {}): Promise<LogKey> {
    return this.http.request({
      method: 'GET',
      path: '/v1/log/key',
      answer: LogKey,
      ...options,
    });
  }

  /** The newest signed head of the log. Whoever asks has to verify it. */
  checkpoint(options: Cancellable = {}): Promise<LogCheckpoint> {
    return this.http.request({
      method: 'GET',
      path: '/v1/log/checkpoint',
      answer: LogCheckpoint,
      ...options,
    });
  }

  /** Proof that an entry is among the first `size` (all there are without it). */
  inclusion(
    query: ({ readonly digest: string } | { readonly index: number }) & { readonly size?: number },
    options: Cancellable = {},
  ): Promise<LogInclusion> {
    return this.http.request({
      method: 'GET',
      path: '/v1/log/inclusion',
      query: { ...query },
      answer: LogInclusion,
      ...options,
    });
  }

  /** Proof that the log of `to` entries extends the one of `from`, both at least 1. */
  consistency(
    query: { readonly from: number; readonly to: number },
    options: Cancellable = {},
  ): Promise<LogConsistency> {
    return this.http.request({
      method: 'GET',
      path: '/v1/log/consistency',
      query,
      answer: LogConsistency,
      ...options,
    });
  }
}
