import type { InboxMessage } from '@hypha/protocol';
import type { Logger } from '@hypha/service';
import type { Store } from '@hypha/store';
import type { AuthorityMirror } from './authority-mirror.ts';
import type { Clock } from './clock.ts';
import type { Doorbell } from './doorbell.ts';
import type { Fleet } from './fleet.ts';
import { authorityMessages, inboxTopic } from './inbox-message.ts';
import { InboxQueue } from './inbox-queue.ts';
import type { LogMirror } from './log-mirror.ts';
import type { CoordinatorDb } from './schema.ts';

/**
 * The open inboxes of nodes. A message is a row until its node answers; sending one only moves its
 * lease. So a message is sent at least once while its node is there, whoever of us dies in between, and
 * nodes recognise a doubled one by its run.
 */
export class Inbox {
  readonly #deps: InboxDeps;
  readonly #queue: InboxQueue;
  /** node id → ends its open inbox. */
  readonly #open = new Map<string, AbortController>();

  constructor(deps: InboxDeps) {
    this.#deps = deps;
    this.#queue = new InboxQueue(deps);
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
      await this.#queue.renewAll(node);
      let sentSeq = authoritySeq;
      let nextInMs: number | undefined;
      while (await rings.next(nextInMs)) {
        const authority = this.#deps.authority.find();
        if (authority !== undefined) {
          yield* authorityMessages(authority, sentSeq, this.#deps.heads.newest);
          sentSeq = authority.seq;
        }
        const claim = await this.#queue.claim(node);
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
