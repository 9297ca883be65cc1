import type { Authority, Checkpoint, Envelope, InboxMessage } from '@hypha/protocol';
import { COORDINATOR_LIMITS as LIMITS } from './limits.ts';

/** Rung when there may be something new for a node: a message, an answer that makes room, an update. */
export function inboxTopic(node: string): string {
  return `inbox ${node}`;
}

/**
 * Updates after `afterSeq`, in messages of a size that every reader takes. The id names the last update
 * in it; the last brings the newest head of the log.
 */
export function authorityMessages(
  authority: Authority,
  afterSeq: number,
  head?: Checkpoint | null,
): readonly InboxMessage[] {
  const messages: InboxMessage[] = [];
  let updates: Envelope[] = [];
  let chars = 0;
  const finish = (seq: number) => {
    if (updates.length === 0) return;
    messages.push({ type: 'authority', id: `authority-${seq}`, authority: updates });
    updates = [];
    chars = 0;
  };
  for (let seq = afterSeq + 1; seq <= authority.seq; seq++) {
    const update = authority.updates[seq];
    if (update === undefined) break;
    const length = JSON.stringify(update).length;
    if (chars + length > LIMITS.authorityMessageCharsMax) finish(seq - 1);
    updates.push(update);
    chars += length;
  }
  finish(authority.seq);
  const last = messages.pop();
  return last === undefined ? [] : [...messages, { ...last, ...stapled(head) }];
}

/** The message that brings a run to its node; its id is the run's, so a doubled one is recognised. */
export function submissionMessage(
  run: string,
  envelope: Envelope,
  head?: Checkpoint | null,
): InboxMessage {
  return { type: 'submission', id: run, run, submission: { envelope, ...stapled(head) } };
}

const CANCEL_PREFIX = 'cancel-';

/** The message that brings a cancel to a node; its id says which, so a doubled one is recognised. */
export function cancelMessage(
  digest: string,
  envelope: Envelope,
  head?: Checkpoint | null,
): InboxMessage {
  return {
    type: 'cancellation',
    id: CANCEL_PREFIX + digest,
    submission: { envelope, ...stapled(head) },
  };
}

/** Of a `cancelMessage` by its id; of any other id, one that no cancel has. */
export function digestOfCancel(messageId: string): string {
  return messageId.startsWith(CANCEL_PREFIX) ? messageId.slice(CANCEL_PREFIX.length) : '';
}

function stapled(head: Checkpoint | null | undefined): { readonly checkpoint?: string } {
  return head === null || head === undefined ? {} : { checkpoint: head.note };
}
