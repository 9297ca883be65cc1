import { type Authority, type Envelope, type InboxMessage, LIMITS } from '@hypha/protocol';

/** Rung when there may be something new for a node: a message, an answer that makes room, an update. */
export function inboxTopic(node: string): string {
  return `inbox ${node}`;
}

/**
 * Updates after `afterSeq`, in messages a node can read one by one. The id names the last update in it.
 */
export function authorityMessages(authority: Authority, afterSeq: number): readonly InboxMessage[] {
  const messages: InboxMessage[] = [];
  for (let from = afterSeq + 1; from <= authority.seq; from += UPDATES_PER_MESSAGE) {
    const updates: readonly Envelope[] = authority.updates.slice(from, from + UPDATES_PER_MESSAGE);
    messages.push({
      type: 'authority',
      id: `authority-${from + updates.length - 1}`,
      authority: [...updates],
    });
  }
  return messages;
}

const UPDATES_PER_MESSAGE = Math.min(200, LIMITS.authorityUpdatesMax);

/** The message that brings a run to its node; its id is the run's, so a doubled one is recognised. */
export function submissionMessage(run: string, envelope: Envelope): InboxMessage {
  return { type: 'submission', id: run, run, submission: { envelope } };
}
