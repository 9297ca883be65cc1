import {
  type BodyOf,
  type Envelope,
  HyphaError,
  type JournalEvent,
  PlanDocument,
  type RunState,
} from '@hypha/protocol';
import type { Store } from '@hypha/store';
import type { JournalTables } from './journal-schema.ts';
import type { SignedReceipt } from './receipt-chain.ts';
import type { DeploymentName } from './record-book.ts';
import { RUN_COLUMNS, type RunEntry, runEntryOf } from './run-entry.ts';
import type { RunMemory } from './run-memory.ts';

export interface RunFilter {
  /** Only of these. */
  readonly realms?: readonly string[];
  readonly deployment?: string;
  readonly state?: string;
  /** Accepted at or after, epoch milliseconds. */
  readonly since?: number;
  /** Only runs before this position: the cursor of a newest-first list. */
  readonly beforePosition?: number;
  readonly limit: number;
}

/** How a run ends whose steps stay as they are. */
const ENDED_KEPT: ReadonlySet<RunState> = new Set(['failed', 'cancelled']);

/** Events read at once when a whole journal is wanted. */
const EVENTS_PAGE = 1000;

/** Reads of runs, events and receipts: from memory where they are there, else from the store. */
export class RunReader {
  readonly #store: Store<JournalTables>;
  readonly #memory: RunMemory | undefined;

  /** @param memory absent: every read asks the store */
  constructor(store: Store<JournalTables>, memory?: RunMemory) {
    this.#store = store;
    this.#memory = memory;
  }

  async findRun(run: string): Promise<RunEntry | undefined> {
    const known = this.#memory?.findRun(run);
    if (known !== undefined) return known;
    const row = await this.#store.db
      .selectFrom('run')
      .select(RUN_COLUMNS)
      .where('run', '=', run)
      .executeTakeFirst();
    return row === undefined ? undefined : runEntryOf(row);
  }

  /** Throws `E_NOT_FOUND`. */
  async getRun(run: string): Promise<RunEntry> {
    const entry = await this.findRun(run);
    if (entry === undefined) throw unknownRun(run);
    return entry;
  }

  /** A run of that digest is known without asking the store. */
  isRemembered(digest: string): boolean {
    return this.#memory?.findByDigest(digest) !== undefined;
  }

  async findByDigest(digest: string): Promise<RunEntry | undefined> {
    const known = this.#memory?.findByDigest(digest);
    if (known !== undefined) return known;
    const row = await this.#store.db
      .selectFrom('run')
      .select(RUN_COLUMNS)
      .where('digest', '=', digest)
      .executeTakeFirst();
    return row === undefined ? undefined : runEntryOf(row);
  }

  /** Newest first. */
  async listRuns(filter: RunFilter): Promise<RunEntry[]> {
    const { realms, deployment, state, since, beforePosition } = filter;
    let query = this.#store.db.selectFrom('run').select(RUN_COLUMNS);
    if (realms !== undefined) query = query.where('realm', 'in', realms);
    if (deployment !== undefined) query = query.where('deployment', '=', deployment);
    if (state !== undefined) query = query.where('state', '=', state);
    if (since !== undefined) query = query.where('acceptedAt', '>=', since);
    if (beforePosition !== undefined) query = query.where('position', '<', beforePosition);
    const rows = await query.orderBy('position', 'desc').limit(filter.limit).execute();
    return rows.map(runEntryOf);
  }

  /** Oldest first: the order in which runs of one deployment take their turn. */
  async listUnfinished(): Promise<RunEntry[]> {
    const rows = await this.#store.db
      .selectFrom('run')
      .select(RUN_COLUMNS)
      .where('endedAt', 'is', null)
      .orderBy('position')
      .execute();
    return rows.map(runEntryOf);
  }

  /** What was signed, exactly as it came. Throws `E_NOT_FOUND`. */
  async readEnvelope(run: string): Promise<Envelope> {
    const known = this.#memory?.findEnvelope(run);
    if (known !== undefined) return known;
    const row = await this.#store.db
      .selectFrom('run')
      .select('envelope')
      .where('run', '=', run)
      .executeTakeFirst();
    if (row === undefined) throw unknownRun(run);
    return JSON.parse(row.envelope) as Envelope;
  }

  /** In order, from after `after`. */
  async listEvents(
    run: string,
    { after, limit }: { after: number; limit: number },
  ): Promise<readonly JournalEvent[]> {
    const known = this.#memory?.findEvents(run);
    if (known !== undefined) return known.slice(after, after + limit);
    const rows = await this.#store.db
      .selectFrom('event')
      .select('body')
      .where('run', '=', run)
      .where('seq', '>', after)
      .orderBy('seq')
      .limit(limit)
      .execute();
    return rows.map(({ body }) => JSON.parse(body) as JournalEvent);
  }

  /** Bounded by what one run may journal. */
  async readAllEvents(run: string): Promise<JournalEvent[]> {
    const events: JournalEvent[] = [];
    for (;;) {
      const page = await this.listEvents(run, { after: events.length, limit: EVENTS_PAGE });
      events.push(...page);
      if (page.length < EVENTS_PAGE) return events;
    }
  }

  /** Undefined until the run has committed. */
  async findCommitted(run: string): Promise<BodyOf<'committed'> | undefined> {
    const known = this.#memory?.findCommitted(run);
    if (known !== undefined) return known;
    // Nothing but `finished` comes after it.
    const rows = await this.#store.db
      .selectFrom('event')
      .select('body')
      .where('run', '=', run)
      .orderBy('seq', 'desc')
      .limit(2)
      .execute();
    const bodies = rows.map(({ body }) => (JSON.parse(body) as JournalEvent).body);
    return bodies.find((body) => body.type === 'committed');
  }

  /** The newest plan of that hash; undefined when this node has none. */
  async findPlan(hash: string): Promise<PlanDocument | undefined> {
    const row = await this.#store.db
      .selectFrom('plan')
      .innerJoin('run', 'run.run', 'plan.run')
      .select('document')
      .where('hash', '=', hash)
      .orderBy('run.position', 'desc')
      .executeTakeFirst();
    return row === undefined ? undefined : PlanDocument.parse(JSON.parse(row.document));
  }

  /**
   * The events of a failed run that was signed to be kept, without the steps that are undone since. Throws
   * `E_NOT_FOUND` when the deployment has no such run, `E_TOO_LATE` when it has committed since.
   */
  async readKept({ realm, deployment }: DeploymentName, target: string): Promise<JournalEvent[]> {
    const entry = await this.findRun(target);
    const isOwn = entry?.realm === realm && entry.deployment === deployment;
    if (!isOwn || !entry.keep || !ENDED_KEPT.has(entry.state)) {
      throw new HyphaError('E_NOT_FOUND', `${realm}/${deployment} kept no failed run ${target}`, {
        hint: 'list them: hypha run list',
      });
    }
    const later = await this.#store.db
      .selectFrom('run')
      .select('run')
      .where('realm', '=', realm)
      .where('deployment', '=', deployment)
      .where('position', '>', entry.position)
      .where('mode', 'in', ['apply', 'destroy'])
      .where('state', 'in', ['committed', 'succeeded'])
      .limit(1)
      .executeTakeFirst();
    if (later !== undefined) {
      throw new HyphaError(
        'E_TOO_LATE',
        `${later.run} of ${realm}/${deployment} has committed since ${target} failed`,
      );
    }
    const undone = await this.#store.db
      .selectFrom('undone')
      .select('step')
      .where('run', '=', target)
      .execute();
    const steps = new Set(undone.map(({ step }) => step));
    const events = await this.readAllEvents(target);
    return events.filter(({ body }) => !('step' in body && steps.has(body.step)));
  }

  async findReceipt(run: string): Promise<Envelope | undefined> {
    const known = this.#memory?.findReceipt(run);
    if (known !== undefined) return known;
    const row = await this.#store.db
      .selectFrom('receipt')
      .select('envelope')
      .where('run', '=', run)
      .executeTakeFirst();
    return row === undefined ? undefined : (JSON.parse(row.envelope) as Envelope);
  }

  /** In the order they were signed. */
  async listReceipts(after: number, limit: number): Promise<SignedReceipt[]> {
    const rows = await this.#store.db
      .selectFrom('receipt')
      .select(['seq', 'digest', 'envelope'])
      .where('seq', '>', after)
      .orderBy('seq')
      .limit(limit)
      .execute();
    return rows.map(({ envelope, ...row }) => ({
      ...row,
      envelope: JSON.parse(envelope) as Envelope,
    }));
  }
}

function unknownRun(run: string): HyphaError {
  return new HyphaError('E_NOT_FOUND', `no run ${run} on this node`, {
    hint: 'list them: hypha run list',
  });
}
