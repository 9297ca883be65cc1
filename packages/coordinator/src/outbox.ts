import {
  errorInfo,
  HyphaError,
  type OutboxBatch,
  type OutboxItem,
  type OutboxResult,
  Problem,
  toProblem,
} from '@hypha/protocol';
import { isStoreConflict } from '@hypha/store';
import { inboxTopic } from './inbox-message.ts';
import { COORDINATOR_LIMITS as LIMITS } from './limits.ts';
import { settleCancel } from './outbox-cancel.ts';
import type { OutboxDeps } from './outbox-deps.ts';
import { storeEvents, storeReceipt } from './outbox-journal.ts';
import { learnRun } from './outbox-run.ts';
import type { RunRow } from './run-record.ts';

/** What a node says of one run, as against of a cancel. */
type RunItem = Exclude<OutboxItem, { type: 'cancellation' }>;
type ItemOf<T extends OutboxItem['type']> = Extract<OutboxItem, { type: T }>;

/** Takes what nodes have to say. Every item may come twice; everything answered `ok` is durable. */
export class Outbox {
  readonly #deps: OutboxDeps;

  constructor(deps: OutboxDeps) {
    this.#deps = deps;
  }

  /**
   * One result per item, in its order. Items of one run are taken in order, those of different runs side
   * by side: their commits share an fsync. One bad item leaves the others alone.
   *
   * Throws what is wrong here and not with an item (`E_UNAVAILABLE`, `E_STALE_VIEW`, `E_STORAGE`): then the
   * whole batch has to be sent again.
   */
  async take(node: string, { items }: OutboxBatch): Promise<OutboxResult[]> {
    const results = new Map<OutboxItem, OutboxResult>();
    const byRun = Map.groupBy(items, subjectOf);
    const groups = [...byRun.values()];
    const work = async () => {
      for (let group = groups.shift(); group !== undefined; group = groups.shift()) {
        for (const item of group) results.set(item, await this.#takeItem(node, item));
      }
    };
    await Promise.all(Array.from({ length: LIMITS.outboxRunsAtOnce }, work));
    return items.map((item) => results.get(item) ?? { status: 'ok' });
  }

  async #takeItem(node: string, item: OutboxItem): Promise<OutboxResult> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#takeOnce(node, item);
      } catch (error) {
        // What is wrong with us is not the item's fault: the node has to keep it.
        if (!(error instanceof HyphaError) || errorInfo(error.code).status >= 500) throw error;
        if (isStoreConflict(error)) {
          // Another batch, or the expiry of its message, changed the run since it was read.
          if (attempt < LIMITS.writeAttemptsMax) continue;
          throw new HyphaError('E_UNAVAILABLE', `${subjectOf(item)} is changed too often`, {
            cause: error,
          });
        }
        this.#deps.log.warn(
          { err: error, nodeId: node, about: subjectOf(item), item: item.type },
          'outbox item refused',
        );
        return { status: 'refused', problem: toProblem(error) };
      }
    }
  }

  async #takeOnce(node: string, item: OutboxItem): Promise<OutboxResult> {
    if (item.type === 'cancellation') {
      const { messageId, problem } = item;
      return await settleCancel(this.#deps, node, {
        messageId,
        problem: problem === null ? null : boundedProblem(problem),
      });
    }
    return await this.#takeOfRun(node, item);
  }

  async #takeOfRun(node: string, item: RunItem): Promise<OutboxResult> {
    if (item.type === 'run') return await learnRun(this.#deps, node, item);
    const row = await this.#deps.runs.find(item.run);
    if (row === undefined) return { status: 'want-run' };
    if (row.node !== node) {
      throw new HyphaError('E_FORBIDDEN', `run ${row.run} is on ${row.node}, not on ${node}`);
    }
    switch (item.type) {
      case 'accepted':
        return await this.#takeAccepted(row, item);
      case 'refused':
        return await this.#takeRefused(row, item);
      case 'events':
        return await storeEvents(this.#deps, row, item.events);
      case 'receipt':
        return await storeReceipt(this.#deps, row, item.envelope);
      default:
        return item satisfies never;
    }
  }

  async #takeAccepted(row: RunRow, item: ItemOf<'accepted'>): Promise<OutboxResult> {
    await this.#answer(row, item.messageId, null);
    return { status: 'ok' };
  }

  async #takeRefused(row: RunRow, item: ItemOf<'refused'>): Promise<OutboxResult> {
    const { clock } = this.#deps;
    await this.#answer(row, item.messageId, {
      problem: boundedProblem(item.problem),
      atMs: clock.nowMs(),
    });
    return { status: 'ok' };
  }

  /** The message is answered: it is never sent again, and makes room for the next one. */
  async #answer(
    row: RunRow,
    messageId: string,
    guess: { problem: Problem; atMs: number } | null,
  ): Promise<void> {
    const { store, runs, bell, clock } = this.#deps;
    const forget = {
      query: store.db
        .deleteFrom('inbox_messages')
        .where('id', '=', messageId)
        .where('run', '=', row.run),
    };
    await runs.change(row, { guess }, clock.nowMs(), [forget]);
    bell.ring(inboxTopic(row.node));
  }
}

/** Items of one subject are taken in order. */
function subjectOf(item: OutboxItem): string {
  return item.type === 'cancellation' ? item.messageId : item.run;
}

/** A node's problem document, without its particulars when they are too large to keep. */
function boundedProblem(problem: Problem): Problem {
  if (JSON.stringify(problem).length <= LIMITS.problemCharsMax) return problem;
  const { type, title, status, detail, code, hint } = problem;
  const short = (text: string) => text.slice(0, LIMITS.problemCharsMax / 16);
  return Problem.parse({
    type: short(type),
    title: short(title),
    status,
    detail: short(detail),
    code: short(code),
    hint: short(hint),
  });
}
