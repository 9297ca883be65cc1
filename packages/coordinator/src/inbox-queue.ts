import type { Checkpoint, Envelope, InboxMessage } from '@hypha/protocol';
import type { Store, WriteResult } from '@hypha/store';
import type { Clock } from './clock.ts';
import { cancelMessage, submissionMessage } from './inbox-message.ts';
import { COORDINATOR_LIMITS as LIMITS } from './limits.ts';
import type { LogMirror } from './log-mirror.ts';
import { nextSendAt } from './resend-schedule.ts';
import type { CoordinatorDb } from './schema.ts';

/** What is to be sent now, and when there may be more: undefined when only a ring can bring it. */
export interface Claim {
  readonly messages: readonly InboxMessage[];
  readonly nextInMs: number | undefined;
}

interface Lease {
  readonly position: number;
  readonly attempts: number;
}

type Table = 'inbox_messages' | 'cancel_messages';

/**
 * The messages of nodes as rows: each stays until its node answers, and sending it only moves its lease.
 * Cancels go first, and a submission that one of them is for does not go before its node has taken it.
 */
export class InboxQueue {
  readonly #deps: InboxQueueDeps;

  constructor(deps: InboxQueueDeps) {
    this.#deps = deps;
  }

  /** A node that comes back gets what it has not answered at once, not when its lease is over. */
  async renewAll(node: string): Promise<void> {
    const { db } = this.#deps.store;
    await this.#deps.store.write([
      { query: db.updateTable('inbox_messages').set({ due_at: 0 }).where('node', '=', node) },
      {
        query: db
          .updateTable('cancel_messages')
          .set({ due_at: 0 })
          .where('node', '=', node)
          .where('outcome', 'is', null),
      },
    ]);
  }

  /** Takes the lease on what is due, oldest first, as far as the node's window of unanswered messages allows. */
  async claim(node: string): Promise<Claim> {
    const nowMs = this.#deps.clock.nowMs();
    const { newest } = this.#deps.heads;
    const cancels = await this.#claimCancels(node, nowMs, newest);
    if (cancels.messages.length > 0) return cancels;
    const submissions = await this.#claimSubmissions(node, nowMs, newest);
    return submissions.messages.length > 0
      ? submissions
      : { messages: [], nextInMs: earliest(cancels.nextInMs, submissions.nextInMs) };
  }

  async #claimCancels(node: string, nowMs: number, head: Checkpoint | null): Promise<Claim> {
    const { db } = this.#deps.store;
    const open = db
      .selectFrom('cancel_messages')
      .where('node', '=', node)
      .where('outcome', 'is', null)
      .where('expires_at', '>', nowMs);
    const { leased, nextDueAt } = await open
      .select(({ fn }) => [
        fn.countAll<number>().as('leased'),
        fn.min<number | null>('due_at').as('nextDueAt'),
      ])
      .where('due_at', '>', nowMs)
      .executeTakeFirstOrThrow();
    const due = await open
      .innerJoin('cancellations', 'cancellations.digest', 'cancel_messages.cancellation')
      .select(['position', 'attempts', 'digest', 'envelope'])
      .where('due_at', '<=', nowMs)
      .orderBy('position')
      .limit(windowOf(leased))
      .execute();
    await this.#lease('cancel_messages', due, nowMs);
    const messages = due.map(({ digest, envelope }) =>
      cancelMessage(digest, JSON.parse(envelope) as Envelope, head),
    );
    return claimOf(messages, nextDueAt, nowMs);
  }

  async #claimSubmissions(node: string, nowMs: number, head: Checkpoint | null): Promise<Claim> {
    const { db } = this.#deps.store;
    const open = db
      .selectFrom('inbox_messages')
      .where('inbox_messages.node', '=', node)
      .where('held', '=', 0)
      .where('expires_at', '>', nowMs);
    const { leased, nextDueAt } = await open
      .select(({ fn }) => [
        fn.countAll<number>().as('leased'),
        fn.min<number | null>('due_at').as('nextDueAt'),
      ])
      .where('due_at', '>', nowMs)
      .executeTakeFirstOrThrow();
    const due = await open
      .innerJoin('runs', 'runs.run', 'inbox_messages.run')
      .innerJoin('revisions', 'revisions.digest', 'runs.digest')
      .select(['position', 'attempts', 'runs.run', 'envelope'])
      .where('due_at', '<=', nowMs)
      .orderBy('position')
      .limit(windowOf(leased))
      .execute();
    const leases = await this.#lease('inbox_messages', due, nowMs);
    // A cancel accepted in this very moment holds it back.
    const free = due.filter((_, index) => leases[index]?.rowsAffected === 1);
    const messages = free.map(({ run, envelope }) =>
      submissionMessage(run, JSON.parse(envelope) as Envelope, head),
    );
    return claimOf(messages, nextDueAt, nowMs);
  }

  async #lease(
    table: Table,
    due: readonly Lease[],
    nowMs: number,
  ): Promise<readonly WriteResult[]> {
    const { store, clock } = this.#deps;
    if (due.length === 0) return [];
    return await store.write(
      due.map(({ position, attempts }) => {
        const lease = {
          attempts: attempts + 1,
          due_at: nextSendAt(nowMs, attempts + 1, clock.random()),
        };
        return {
          query:
            table === 'cancel_messages'
              ? store.db.updateTable(table).set(lease).where('position', '=', position)
              : store.db
                  .updateTable(table)
                  .set(lease)
                  .where('position', '=', position)
                  .where('held', '=', 0),
        };
      }),
    );
  }
}

/** How many more may be sent while so many are unanswered. */
function windowOf(leased: number): number {
  return Math.max(0, Math.min(LIMITS.inFlightPerNodeMax - leased, LIMITS.inboxClaimMax));
}

/** After a claim, look again: the lease of these, or the next of the backlog, says how long there is time. */
function claimOf(
  messages: readonly InboxMessage[],
  nextDueAt: number | null,
  nowMs: number,
): Claim {
  if (messages.length > 0) return { messages, nextInMs: 0 };
  return { messages, nextInMs: nextDueAt === null ? undefined : nextDueAt - nowMs };
}

function earliest(...times: readonly (number | undefined)[]): number | undefined {
  const known = times.filter((time) => time !== undefined);
  return known.length === 0 ? undefined : Math.min(...known);
}

export interface InboxQueueDeps {
  readonly store: Store<CoordinatorDb>;
  /** What is passed on with every message. */
  readonly heads: Pick<LogMirror, 'newest'>;
  readonly clock: Clock;
}
