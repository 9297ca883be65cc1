import { CoordinatorClient } from '@hypha/client';
import {
  digestOf,
  type Envelope,
  eventHash,
  fromBase64,
  GENESIS_HASH,
  InboxMessage,
  type JournalBody,
  type JournalEvent,
  type NodeView,
  type OutboxItem,
  type OutboxResult,
  type Problem,
  type ScriptPayload,
  type Signer,
  signReceipt,
} from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import { vi } from 'vitest';

/** A node that speaks the real protocol and does nothing by itself. */
export class FakeNode {
  readonly id: string;
  readonly name: string;
  readonly signer: Signer;
  readonly #url: () => string;
  readonly received: InboxMessage[] = [];
  /** Why its inbox ended last. */
  lost: unknown;
  #inbox: { readonly end: AbortController; readonly done: Promise<void> } | undefined;

  constructor(options: { view: Pick<NodeView, 'id' | 'name'>; signer: Signer; url: () => string }) {
    this.id = options.view.id;
    this.name = options.view.name;
    this.signer = options.signer;
    this.#url = options.url;
  }

  get client(): CoordinatorClient {
    return new CoordinatorClient({ baseUrl: this.#url(), signer: this.signer });
  }

  /** Opens the inbox and keeps what comes. Resolves at the first message, the authority. */
  async open(): Promise<void> {
    const end = new AbortController();
    const before = this.received.length;
    this.lost = undefined;
    const read = async () => {
      for await (const { data } of this.client.inbox(this.id, { signal: end.signal })) {
        this.received.push(InboxMessage.parse(JSON.parse(data)));
      }
    };
    const done = read().then(
      () => {
        this.lost = 'ended';
      },
      (error: unknown) => {
        this.lost = error;
      },
    );
    this.#inbox = { end, done };
    await vi.waitFor(() => {
      if (this.lost !== undefined) throw this.lost;
      if (this.received.length === before) throw new Error(`${this.name} has no message yet`);
    });
  }

  get isOpen(): boolean {
    return this.#inbox !== undefined && this.lost === undefined;
  }

  async close(): Promise<void> {
    this.#inbox?.end.abort();
    await this.#inbox?.done;
  }

  /** How often a run's submission came. */
  deliveries(run: string): number {
    return this.received.filter((message) => message.type === 'submission' && message.run === run)
      .length;
  }

  async waitForRun(run: string): Promise<Envelope> {
    return await vi.waitFor(
      () => {
        const message = this.received.find(
          (each) => each.type === 'submission' && each.run === run,
        );
        if (message?.type !== 'submission') throw new Error(`${run} did not come to ${this.name}`);
        return message.submission.envelope;
      },
      { timeout: 10_000 },
    );
  }

  /** How often a cancel came. */
  cancels(digest: string): number {
    return this.received.filter(({ id }) => id === `cancel-${digest}`).length;
  }

  async waitForCancel(digest: string): Promise<Envelope> {
    return await vi.waitFor(
      () => {
        const message = this.received.find(({ id }) => id === `cancel-${digest}`);
        if (message?.type !== 'cancellation') throw new Error(`no cancel came to ${this.name}`);
        return message.submission.envelope;
      },
      { timeout: 10_000 },
    );
  }

  /** Says that it has the cancel durably, or why it will not have it. */
  async answerCancel(digest: string, problem: Problem | null = null): Promise<OutboxResult[]> {
    return await this.send({ type: 'cancellation', messageId: `cancel-${digest}`, problem });
  }

  async send(...items: OutboxItem[]): Promise<OutboxResult[]> {
    return (await this.client.sendOutbox(this.id, { items })).results;
  }

  /** Says that it has the run in its journal. */
  async acknowledge(run: string): Promise<void> {
    await this.send({ type: 'accepted', messageId: run, run });
  }
}

/** The journal a run would have: `accepted`, then these. */
export function journalOf(
  node: FakeNode,
  run: string,
  script: { readonly payload: ScriptPayload; readonly envelope: Envelope },
  ...bodies: readonly JournalBody[]
): JournalEvent[] {
  const { payload, envelope } = script;
  const accepted: JournalBody = {
    type: 'accepted',
    envelopeDigest: digestOfEnvelope(envelope),
    node: node.id,
    realm: payload.realm,
    deployment: payload.deployment,
    generation: payload.generation,
    mode: payload.mode,
    keyids: envelope.signatures.map(({ keyid }) => keyid),
    authoritySeq: 0,
  };
  let prev = GENESIS_HASH;
  return [accepted, ...bodies].map((body, index) => {
    const event = { run, seq: index + 1, epoch: 1, at: 1_000 + index, prev, body };
    const hash = eventHash(nodeVerifier, event);
    prev = hash;
    return { ...event, hash };
  });
}

export const STARTED: JournalBody = {
  type: 'started',
  runner: 'runner-1',
  bootId: 'boot-1',
  abi: '1',
  nowMs: 1,
};
export const COMMITTED: JournalBody = {
  type: 'committed',
  output: '{"answer":42}',
  outputSha256: 'a'.repeat(64),
  desired: [],
};
export const SUCCEEDED: JournalBody = {
  type: 'finished',
  state: 'succeeded',
  problem: null,
  undone: 0,
  leftovers: [],
};

/** A run that ended before it began, or was undone, because of a cancel. */
export const CANCELLED: JournalBody = { ...SUCCEEDED, state: 'cancelled' };

export function digestOfEnvelope(envelope: Envelope): string {
  return digestOf(nodeVerifier, envelope.payloadType, fromBase64(envelope.payload));
}

/** The receipt of a run that succeeded with this journal. */
export function receiptOf(
  node: FakeNode,
  script: { readonly payload: ScriptPayload; readonly envelope: Envelope },
  journal: readonly JournalEvent[],
  changes: Partial<Parameters<typeof signReceipt>[0]> = {},
): Envelope {
  const last = journal.at(-1);
  if (last === undefined) throw new Error('a receipt needs a journal');
  const { payload, envelope } = script;
  return signReceipt(
    {
      v: 1,
      run: last.run,
      envelopeDigest: digestOfEnvelope(envelope),
      node: node.id,
      realm: payload.realm,
      deployment: payload.deployment,
      generation: payload.generation,
      mode: payload.mode,
      state: 'succeeded',
      startedAt: 1,
      endedAt: last.at,
      steps: 0,
      journalHead: last.hash,
      undone: 0,
      leftovers: [],
      prev: null,
      seq: 1,
      authoritySeq: 0,
      ...changes,
    },
    node.signer,
  );
}
