import {
  type Envelope,
  HyphaError,
  isTerminal,
  type JournalEvent,
  type Page,
  type RunView,
} from '@hypha/protocol';
import type { RunFilter, RunSource, ServerEvent } from '@hypha/service';
import type { Store } from '@hypha/store';
import { z } from 'zod';
import type { Doorbell } from './doorbell.ts';
import { COORDINATOR_LIMITS as LIMITS } from './limits.ts';
import { decodeCursor, encodeCursor, pageFrom } from './page-cursor.ts';
import { runTopic } from './run-book.ts';
import { type RunRow, viewOf } from './run-record.ts';
import type { CoordinatorDb } from './schema.ts';

const RunKey = z.tuple([z.int(), z.string()]);
const JournalKey = z.tuple([z.int().nonnegative()]);

/** What can be read of runs. */
export class RunReader implements RunSource {
  readonly #store: Store<CoordinatorDb>;
  readonly #bell: Doorbell;

  constructor(deps: { readonly store: Store<CoordinatorDb>; readonly bell: Doorbell }) {
    this.#store = deps.store;
    this.#bell = deps.bell;
  }

  /** Newest first. */
  async list(filter: RunFilter): Promise<Page<RunView>> {
    const after = decodeCursor(RunKey, filter.cursor);
    let query = this.#store.db
      .selectFrom('runs')
      .selectAll()
      .orderBy('submitted_at', 'desc')
      .orderBy('run', 'desc')
      .limit(filter.limit + 1);
    if (filter.realms !== undefined) query = query.where('realm', 'in', filter.realms);
    if (filter.deployment !== undefined) {
      query = query.where('deployment', '=', filter.deployment);
    }
    if (filter.node !== undefined) query = query.where('node', '=', filter.node);
    if (filter.state !== undefined) query = query.where('state', '=', filter.state);
    if (filter.since !== undefined) query = query.where('submitted_at', '>=', filter.since);
    if (after !== undefined) {
      const [time, run] = after;
      query = query.where(({ eb, or, and }) =>
        or([
          eb('submitted_at', '<', time),
          and([eb('submitted_at', '=', time), eb('run', '<', run)]),
        ]),
      );
    }
    const rows = await query.execute();
    return pageFrom(rows, filter.limit, (row) => [row.submitted_at, row.run], viewOf);
  }

  async find(run: string): Promise<RunView | undefined> {
    const row = await this.#findRow(run);
    return row === undefined ? undefined : viewOf(row);
  }

  /** Events after `cursor`, oldest first; a page is also bounded in bytes. */
  async journal(
    run: string,
    page: { readonly limit: number; readonly cursor?: string | undefined },
  ): Promise<Page<JournalEvent>> {
    const row = await this.#row(run);
    let [after] = decodeCursor(JournalKey, page.cursor) ?? [0];
    const items: JournalEvent[] = [];
    let bytes = 0;
    while (items.length < page.limit && bytes < LIMITS.journalPageBytesMax) {
      const count = Math.min(LIMITS.streamReadRows, page.limit - items.length);
      const events = await this.#eventsAfter(run, after, count);
      for (const { seq, event } of events) {
        items.push(JSON.parse(event) as JournalEvent);
        bytes += event.length;
        after = seq;
        if (bytes >= LIMITS.journalPageBytesMax) break;
      }
      if (events.length < count) break;
    }
    return { items, nextCursor: after < row.last_seq ? encodeCursor([after]) : null };
  }

  /** Undefined until the run has committed. */
  async findOutput(run: string): Promise<{ output: string; sha256: string } | undefined> {
    const row = await this.#store.db
      .selectFrom('journal_events')
      .select('event')
      .where('run', '=', run)
      .where('type', '=', 'committed')
      .executeTakeFirst();
    const body = row === undefined ? undefined : (JSON.parse(row.event) as JournalEvent).body;
    if (body?.type !== 'committed') return undefined;
    return { output: body.output, sha256: body.outputSha256 };
  }

  /** What was signed, as it was submitted. */
  async envelope(run: string): Promise<Envelope> {
    const row = await this.#store.db
      .selectFrom('runs')
      .innerJoin('revisions', 'revisions.digest', 'runs.digest')
      .select('revisions.envelope')
      .where('runs.run', '=', run)
      .executeTakeFirstOrThrow();
    return JSON.parse(row.envelope) as Envelope;
  }

  /** Undefined until the node has sent it. */
  async findReceipt(run: string): Promise<Envelope | undefined> {
    const row = await this.#store.db
      .selectFrom('receipts')
      .select('envelope')
      .where('run', '=', run)
      .executeTakeFirst();
    return row === undefined ? undefined : (JSON.parse(row.envelope) as Envelope);
  }

  /**
   * The journal as it grows, after `seq`, until its end. Before the node speaks, and when it never will, an
   * event `state` with id 0 holds the `RunView`.
   */
  async *events(
    run: string,
    seq: number,
    signal: AbortSignal,
  ): AsyncGenerator<ServerEvent, void, undefined> {
    const rings = this.#bell.listen(runTopic(run), signal);
    let after = seq;
    let told: string | undefined;
    while (await rings.next()) {
      // The row first: what it counts is then there to be read.
      const row = await this.#row(run);
      const view = JSON.stringify(viewOf(row));
      if (row.last_seq === 0 && view !== told) {
        told = view;
        yield { id: '0', event: 'state', data: view };
      }
      while (after < row.last_seq) {
        const events = await this.#eventsAfter(run, after, LIMITS.streamReadRows);
        for (const each of events) {
          yield { id: String(each.seq), event: each.type, data: each.event };
          after = each.seq;
        }
        if (events.length === 0) break;
      }
      // A guessed end can still be overridden, but nobody may wait for that.
      if (isTerminal(viewOf(row).state)) return;
    }
  }

  async #row(run: string): Promise<RunRow> {
    const row = await this.#findRow(run);
    if (row !== undefined) return row;
    throw new HyphaError('E_NOT_FOUND', `run ${run} is not known here`, { hint: 'hypha run list' });
  }

  #findRow(run: string): Promise<RunRow | undefined> {
    return this.#store.db.selectFrom('runs').selectAll().where('run', '=', run).executeTakeFirst();
  }

  #eventsAfter(run: string, seq: number, limit: number) {
    return this.#store.db
      .selectFrom('journal_events')
      .select(['seq', 'type', 'event'])
      .where('run', '=', run)
      .where('seq', '>', seq)
      .orderBy('seq')
      .limit(limit)
      .execute();
  }
}
