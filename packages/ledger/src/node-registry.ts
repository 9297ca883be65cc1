import {
  Envelope,
  fromBase64,
  HyphaError,
  Labels,
  NodeFacts,
  type NodeView,
  type Page,
  parseStrictJson,
  ReportPayload,
  ResourceLimits,
  type Verifier,
  verifyReport,
} from '@hypha/protocol';
import type { Store } from '@hypha/store';
import { z } from 'zod';
import { LEDGER_LIMITS } from './ledger-limits.ts';
import type { LedgerDb, NodeRow } from './ledger-schema.ts';
import type { PendingNodes } from './pending-nodes.ts';

export interface NodeFilter {
  /** All must match. */
  readonly labels: readonly { readonly key: string; readonly value: string }[];
  readonly state?: NodeView['state'] | undefined;
  /** Only names behind this one. */
  readonly after: string;
  readonly limit: number;
}

interface Deps {
  readonly store: Store<LedgerDb>;
  readonly verifier: Verifier;
  readonly reportIntervalMs: number;
  readonly nowMs: () => number;
  readonly pending: Pick<PendingNodes, 'list'>;
}

/** What the ledger knows of nodes: who they are from their enrolment, how they are from their reports. */
export class NodeRegistry {
  readonly #deps: Deps;

  constructor(deps: Deps) {
    this.#deps = deps;
  }

  async findById(id: string): Promise<NodeRow | undefined> {
    return await this.#nodes().where('id', '=', id).executeTakeFirst();
  }

  async findByKey(keyid: string): Promise<NodeRow | undefined> {
    return await this.#nodes().where('keyid', '=', keyid).executeTakeFirst();
  }

  async findByName(name: string): Promise<NodeRow | undefined> {
    return await this.#nodes().where('name', '=', name).executeTakeFirst();
  }

  /** Throws `E_NOT_FOUND`. */
  async getById(id: string): Promise<NodeRow> {
    const row = await this.findById(id);
    if (row === undefined) throw new HyphaError('E_NOT_FOUND', `no node ${id} has enrolled`);
    return row;
  }

  /** By name. Nodes that wait to be let in are listed only when asked for. */
  async list(filter: NodeFilter): Promise<Page<NodeView>> {
    const silentSince = this.#silentSince();
    let query = this.#nodes().where('name', '>', filter.after);
    for (const { key, value } of filter.labels) {
      query = query.where('id', 'in', (labels) =>
        labels
          .selectFrom('node_labels')
          .select('node')
          .where('key', '=', key)
          .where('value', '=', value),
      );
    }
    switch (filter.state) {
      case undefined:
        break;
      case 'revoked':
        query = query.where('revoked', '=', 1);
        break;
      case 'ready':
        query = query.where('revoked', '=', 0).where('heard_at', '>=', silentSince);
        break;
      case 'unreachable':
        query = query.where('revoked', '=', 0).where('heard_at', '<', silentSince);
        break;
      case 'pending':
        return this.#listPending(filter);
      case 'cordoned':
        // The coordinator's word.
        return { items: [], nextCursor: null };
    }
    const rows = await query
      .orderBy('name')
      .limit(filter.limit + 1)
      .execute();
    const items = rows.slice(0, filter.limit);
    return {
      items: items.map((row) => this.view(row)),
      nextCursor: rows.length > filter.limit ? (items.at(-1)?.name ?? null) : null,
    };
  }

  /** They have no labels. */
  #listPending({ labels, after, limit }: NodeFilter): Page<NodeView> {
    const matching = labels.length > 0 ? [] : this.#deps.pending.list();
    const rest = matching.filter(({ name }) => name > after);
    const items = rest.slice(0, limit);
    const nextCursor = rest.length > limit ? (items.at(-1)?.name ?? null) : null;
    return { items, nextCursor };
  }

  view(row: NodeRow): NodeView {
    const reachable = row.heard_at >= this.#silentSince();
    return {
      id: row.id,
      name: row.name,
      state: row.revoked === 1 ? 'revoked' : reachable ? 'ready' : 'unreachable',
      labels: Labels.parse(JSON.parse(row.labels)),
      realms: z.array(z.string()).parse(JSON.parse(row.realms)),
      keyid: row.keyid,
      publicKey: row.public_key,
      sealKey: row.seal_key,
      ...(row.replaced_by === null ? {} : { replacedBy: row.replaced_by }),
      enrolledAt: row.enrolled_at,
      lastReportAt: row.reported_at,
      ...(row.report === null ? {} : { authoritySeq: authoritySeqOf(row.report) }),
      bootId: row.boot_id,
      uptimeMs: row.uptime_ms,
      facts: NodeFacts.parse(JSON.parse(row.facts)),
      free: ResourceLimits.parse(JSON.parse(row.free)),
    };
  }

  /**
   * Takes a batch of a node's reports, oldest first, and keeps the newest. Reports at or below the seq it
   * has are skipped. Answers the seq it has afterwards: a node that lost its count goes on above it.
   * @throws HyphaError the codes of `verifyReport`; `E_REQUEST` when the batch is not in order
   */
  async record(row: NodeRow, reports: readonly Envelope[]): Promise<number> {
    const publicKey = fromBase64(row.public_key);
    let newest: { payload: ReportPayload; envelope: Envelope } | undefined;
    for (const [index, envelope] of reports.entries()) {
      const report = verifyReport(this.#deps.verifier, { envelope, publicKey });
      if (newest !== undefined && report.payload.seq <= newest.payload.seq) {
        throw new HyphaError(
          'E_REQUEST',
          `reports of ${row.id} are not in the order of their seq`,
          {
            where: { path: `reports.${index}` },
          },
        );
      }
      newest = report;
    }
    if (newest === undefined || newest.payload.seq <= row.report_seq) return row.report_seq;
    const { payload, envelope } = newest;
    const { db } = this.#deps.store;
    const now = this.#deps.nowMs();
    await this.#deps.store.write([
      {
        // A later batch may have been faster: then this one changes nothing.
        query: db
          .updateTable('nodes')
          .set({
            heard_at: now,
            report_seq: payload.seq,
            reported_at: now,
            report: JSON.stringify(envelope),
            boot_id: payload.bootId,
            uptime_ms: payload.uptimeMs,
            facts: JSON.stringify(payload.facts),
            free: JSON.stringify(payload.free),
          })
          .where('id', '=', row.id)
          .where('report_seq', '<', payload.seq),
      },
    ]);
    return payload.seq;
  }

  #nodes() {
    return this.#deps.store.db.selectFrom('nodes').selectAll();
  }

  #silentSince(): number {
    return this.#deps.nowMs() - LEDGER_LIMITS.silentIntervals * this.#deps.reportIntervalMs;
  }
}

/** Of a report that was verified when it came; kept as its envelope. */
function authoritySeqOf(report: string): number {
  const { payload } = Envelope.parse(JSON.parse(report));
  return ReportPayload.parse(parseStrictJson(fromBase64(payload))).authoritySeq;
}
