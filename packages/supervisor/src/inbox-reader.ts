import { followStream, type HyphaClient, inboxPath } from '@hypha/client';
import {
  HyphaError,
  InboxMessage,
  type OutboxItem,
  type Submission,
  toProblem,
} from '@hypha/protocol';
import type { Logger } from '@hypha/service';
import type { LogView } from './fleet-log.ts';

interface InboxReaderDeps {
  readonly client: Pick<HyphaClient, 'stream'>;
  readonly node: string;
  readonly fleetLog: LogView;
  readonly submit: (
    submission: Submission,
  ) => Promise<{ readonly entry: { readonly run: string } }>;
  readonly cancel: (submission: Submission) => Promise<unknown>;
  readonly acknowledge: (item: OutboxItem) => void;
  readonly log: Logger;
}

/**
 * Listens to the coordinator for as long as the signal lasts. It is believed nothing: what it brings is
 * verified like any submission. What is not answered comes again.
 */
export async function readInbox(deps: InboxReaderDeps, signal: AbortSignal): Promise<void> {
  const { client, node, log } = deps;
  let isOpen = false;
  const events = followStream(client, {
    path: inboxPath(node),
    query: { authoritySeq: deps.fleetLog.current().seq },
    signal,
    // Whatever a coordinator answers today, the next one may be of another mind.
    persist: () => true,
    onLost: (err) => {
      if (isOpen) log.warn({ err }, 'coordinator lost');
      else log.debug({ err }, 'coordinator not reached');
      isOpen = false;
    },
  });
  for await (const { data } of events) {
    if (!isOpen) log.info('coordinator reached');
    isOpen = true;
    const message = parseMessage(data);
    if (message === undefined) log.warn('inbox message cannot be read');
    else await take(deps, message);
  }
}

function parseMessage(data: string): InboxMessage | undefined {
  try {
    return InboxMessage.parse(JSON.parse(data));
  } catch {
    return undefined;
  }
}

async function take(deps: InboxReaderDeps, message: InboxMessage): Promise<void> {
  const { fleetLog, submit, acknowledge, log } = deps;
  if (message.type === 'authority') {
    await fleetLog.offer(message.authority, message.checkpoint);
    return;
  }
  if (message.type === 'cancellation') return await takeCancel(deps, message);
  const { id: messageId, run } = message;
  try {
    const { entry } = await submit(message.submission);
    acknowledge({ type: 'accepted', messageId, run: entry.run });
  } catch (error) {
    const isFinal = isFinalRefusal(error);
    log.warn({ err: error, run, isFinal }, 'work from the coordinator refused');
    if (isFinal) acknowledge({ type: 'refused', messageId, run, problem: toProblem(error) });
  }
}

async function takeCancel(
  { cancel, acknowledge, log }: InboxReaderDeps,
  { id: messageId, submission }: Extract<InboxMessage, { type: 'cancellation' }>,
): Promise<void> {
  try {
    await cancel(submission);
    acknowledge({ type: 'cancellation', messageId, problem: null });
  } catch (error) {
    const isFinal = isFinalRefusal(error);
    log.warn({ err: error, messageId, isFinal }, 'cancel from the coordinator refused');
    if (isFinal) acknowledge({ type: 'cancellation', messageId, problem: toProblem(error) });
  }
}

/** Nothing that sending it again could change. */
function isFinalRefusal(error: unknown): error is HyphaError {
  return error instanceof HyphaError && !error.retryable && error.code !== 'E_INTERNAL';
}
