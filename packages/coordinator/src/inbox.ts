import type { Checkpoint, Envelope, InboxMessage } from '@hypha/protocol';
import type { Logger } from '@hypha/service';
import type { Store } from '@hypha/store';
import type { AuthorityMirror } from './authority-mirror.ts';
import type { Clock } from './clock.ts';
import type { Doorbell } from './doorbell.ts';
import type { Fleet } from './fleet.ts';
import { authorityMessages, inboxTopic, submissionMessage } from './inbox-message.ts';
import { COORDINATOR_LIMITS as LIMITS } from './limits.ts';
import type { LogMirror } from './log-mirror.ts';
import { nextSendAt } from './resend-schedule.ts';
import type { CoordinatorDb } from './schema.ts';

/**
 * The open inboxes of nodes. A message is a row until its node answers; sending one only moves its
 * lease. So a message is sent at least once while its node is there, whoever of us dies in between, and
 * nodes recognise a doubled one by its run.
 */
export class Inbox {
  readonly #deps: InboxDeps;
  /** node id → ends its open inbox. */
  readonly #open = new Map<string, AbortController>();

  constructor(deps: InboxDeps) {
    this.#deps = deps;
  }

  /**
   * What a node is to be told, from now until the signal aborts, another connection of the same node
   * takes over, or the node is revoked. First the authority, so that the node can verify what follows;
   * then everything unanswered at once, then again by its lease.
   *
   * @param authoritySeq newest update the node says it knows; -1: all are sent
   */
  async *messages(
    node: string,
    authoritySeq: number,
    signal: AbortSignal,
  ): AsyncGenerator<InboxMessage, void, undefined> {
    const { bell, fleet, log } = this.#deps;
    const connection = this.#takeOver(node);
    const end = AbortSignal.any([signal, connection.signal]);
    const rings = bell.listen(inboxTopic(node), end);
    fleet.enter(node);
    log.info({ nodeId: node }, 'inbox opened');
    try {
      await fleet.tellChanges();
      await this.#renewAll(node);
      let sentSeq = authoritySeq;
      let nextInMs: number | undefined;
      while (await rings.next(nextInMs)) {
        const authority = this.#deps.authority.find();
        if (authority !== undefined) {
          yield* authorityMessages(authority, sentSeq, this.#deps.heads.newest);
          sentSeq = authority.seq;
        }
        const claim = await this.#claim(node);
        yield* claim.messages;
        nextInMs = claim.nextInMs;
      }
    } finally {
      connection.abort();
      if (this.#open.get(node) === connection) {
        this.#open.delete(node);
        fleet.leave(node);
        log.info({ nodeId: node }, 'inbox closed');
      }
    }
  }

  /** Closes the inboxes of nodes that may no longer have one, and tells the others of new updates. */
  authorityGrew(): void {
    this.closeRevoked();
    for (const node of this.#open.keys()) this.#deps.bell.ring(inboxTopic(node));
  }

  /** Ends the streams of nodes that the authority revoked, or whose place another key has taken. */
  closeRevoked(): void {
    const { fleet, log } = this.#deps;
    for (const [node, connection] of this.#open) {
      if (fleet.find(node)?.state !== 'revoked' || connection.signal.aborted) continue;
      log.warn({ nodeId: node }, 'inbox of a revoked node closed');
      connection.abort();
    }
  }

  #takeOver(node: string): AbortController {
    this.#open.get(node)?.abort();
    const connection = new AbortController();
    this.#open.set(node, connection);
    return connection;
  }

  /** A node that comes back gets what it has not answered at once, not when its lease is over. */
  async #renewAll(node: string): Promise<void> {
    const { store } = this.#deps;
    await store.write([
      {
        query: store.db.updateTable('inbox_messages').set({ due_at: 0 }).where('node', '=', node),
      },
    ]);
  }

  /**
   * Takes the lease on what is due, oldest first, as far as the node's window of unanswered messages
   * allows. `nextInMs`: when there may be more; undefined when only a ring can bring it.
   */
  async #claim(node: string): Promise<Claim> {
    const { store, clock } = this.#deps;
    const nowMs = clock.nowMs();
    const { leased, nextDueAt } = await this.#leases(node, nowMs);
    const limit = Math.min(LIMITS.inFlightPerNodeMax - leased, LIMITS.inboxClaimMax);
    const due = limit > 0 ? await this.#listDue(node, nowMs, limit) : [];
    if (due.length > 0) {
      await store.write(
        due.map(({ id, attempts }) => ({
          query: store.db
            .updateTable('inbox_messages')
            .set({
              attempts: attempts + 1,
              due_at: nextSendAt(nowMs, attempts + 1, clock.random()),
            })
            .where('id', '=', id),
        })),
      );
      // Its own lease, or the next of the backlog: either way, look again.
      const messages = due.map((row) => messageOf(row, this.#deps.heads.newest));
      return { messages, nextInMs: 0 };
    }
    return { messages: [], nextInMs: nextDueAt === null ? undefined : nextDueAt - nowMs };
  }

  /** Unanswered messages that are not due yet, and when the first of them is. */
  #leases(node: string, nowMs: number) {
    return this.#deps.store.db
      .selectFrom('inbox_messages')
      .select(({ fn }) => [
        fn.countAll<number>().as('leased'),
        fn.min<number | null>('due_at').as('nextDueAt'),
      ])
      .where('node', '=', node)
      .where('due_at', '>', nowMs)
      .where('expires_at', '>', nowMs)
      .executeTakeFirstOrThrow();
  }

  #listDue(node: string, nowMs: number, limit: number) {
    return this.#deps.store.db
      .selectFrom('inbox_messages')
      .innerJoin('runs', 'runs.run', 'inbox_messages.run')
      .innerJoin('revisions', 'revisions.digest', 'runs.digest')
      .select(['inbox_messages.id', 'runs.run', 'attempts', 'envelope'])
      .where('inbox_messages.node', '=', node)
      .where('due_at', '<=', nowMs)
      .where('expires_at', '>', nowMs)
      .orderBy('inbox_messages.position')
      .limit(limit)
      .execute();
  }
}

interface Claim {
  readonly messages: readonly InboxMessage[];
  readonly nextInMs: number | undefined;
}

function messageOf(
  row: { readonly run: string; readonly envelope: string },
  head: Checkpoint | null,
): InboxMessage {
  return submissionMessage(row.run, JSON.parse(row.envelope) as Envelope, head);
}

export interface InboxDeps {
  readonly store: Store<CoordinatorDb>;
  readonly authority: AuthorityMirror;
  /** What is passed on with every message. */
  readonly heads: Pick<LogMirror, 'newest'>;
  readonly fleet: Fleet;
  readonly bell: Doorbell;
  readonly clock: Clock;
  readonly log: Logger;
}
