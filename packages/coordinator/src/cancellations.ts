import {
  assertMayCancel,
  type CancellationAccepted,
  envelopeDigest,
  HyphaError,
  isHyphaError,
  isTerminal,
  type Submission,
  type VerifiedCancel,
  type Verifier,
  verifyCancel,
} from '@hypha/protocol';
import { isStoreConflict, type Store } from '@hypha/store';
import type { AuthorityMirror } from './authority-mirror.ts';
import { mayCancel, signersOf } from './cancel-memory.ts';
import { cancellationWrites } from './cancellation-writes.ts';
import type { ChangeFeed } from './change-feed.ts';
import type { Clock } from './clock.ts';
import type { Doorbell } from './doorbell.ts';
import { inboxTopic } from './inbox-message.ts';
import type { LedgerFollower } from './ledger-follower.ts';
import { COORDINATOR_LIMITS as LIMITS } from './limits.ts';
import type { LogMirror } from './log-mirror.ts';
import { runTopic } from './run-book.ts';
import { guessOf, isGuessed, type RunRow, stateOf } from './run-record.ts';
import type { CoordinatorDb } from './schema.ts';
import { findTarget, type TargetRecord } from './target-record.ts';

/** Accepts signed cancels: verified, and durable before the answer, whether or not their target is known. */
export class Cancellations {
  readonly #deps: CancellationsDeps;

  constructor(deps: CancellationsDeps) {
    this.#deps = deps;
  }

  /**
   * The cancel, its messages and the mark on its runs are one durable write before this resolves. From then
   * on a submission of the target that was not sent is sent only to a node that has taken the cancel. The
   * same envelope again answers the same, also after `exp`.
   *
   * Throws the codes of `verifyCancel`, `E_AUTHORITY` (stapled updates), `E_AUDIENCE` when no node of it may
   * have the target, `E_TOO_LATE` when the target has committed or ended on each of them, `E_RATE`,
   * `E_UNAVAILABLE`; nothing is kept then.
   */
  async cancel(submission: Submission): Promise<CancellationAccepted> {
    const { verifier, authority, follower, heads } = this.#deps;
    const digest = envelopeDigest(verifier, submission.envelope, 'cancel');
    if (!(await this.#isKnown(digest))) await follower.freshen();
    await authority.growFromStaple(submission.authority ?? []);
    await heads.offer(submission.checkpoint);
    for (let attempt = 1; ; attempt++) {
      const isKnown = await this.#isKnown(digest);
      const cancel = await this.#verifyFresh(submission, isKnown);
      if (isKnown) return await this.#answerExisting(cancel);
      try {
        return await this.#accept(cancel);
      } catch (error) {
        // A run came, or went on, between our reads and our write: judge by what is there now.
        if (!isStoreConflict(error) || attempt === LIMITS.writeAttemptsMax) throw error;
      }
    }
  }

  /** Asks the ledger once more for a key of this very second. */
  async #verifyFresh(submission: Submission, isKnown: boolean): Promise<VerifiedCancel> {
    try {
      return this.#verify(submission, isKnown);
    } catch (error) {
      if (!isHyphaError(error, 'E_UNKNOWN_KEY')) throw error;
      await this.#deps.follower.learnAuthority();
      return this.#verify(submission, isKnown);
    }
  }

  #verify({ envelope }: Submission, isKnown: boolean): VerifiedCancel {
    const { verifier, authority, heads } = this.#deps;
    return verifyCancel(verifier, {
      envelope,
      authority: authority.get(),
      // Its times were checked when it was accepted.
      ...(isKnown ? {} : { nowSeconds: heads.nowSeconds() }),
    });
  }

  async #accept(cancel: VerifiedCancel): Promise<CancellationAccepted> {
    const { store, bell, changes, clock, expiryGraceMs } = this.#deps;
    const { payload, digest } = cancel;
    const target = await findTarget(store, payload.target);
    if (target !== undefined) assertMayCancel(cancel, target);
    const runs = await this.#runsOf(payload.target);
    const aimed = runs.filter(({ node }) => payload.aud.nodes.includes(node));
    const live = aimed.filter((row) => !isOver(row));
    const nodes = nodesToTell(cancel, target, aimed);
    if (nodes.length === 0) return answerOver(cancel, aimed);
    await this.#checkRoom(cancel, target, nodes.length);
    await store.write(
      cancellationWrites({
        ...{ store, changes, cancel, nodes, live },
        runsKnown: runs.length,
        nowMs: clock.nowMs(),
        graceMs: expiryGraceMs,
      }),
    );
    changes.ring();
    for (const { run } of live) bell.ring(runTopic(run));
    for (const node of nodes) bell.ring(inboxTopic(node));
    return { cancellation: digest, target: payload.target, runs: live.map(namesOf) };
  }

  async #answerExisting({ digest, payload }: VerifiedCancel): Promise<CancellationAccepted> {
    const runs = await this.#runsOf(payload.target);
    return {
      cancellation: digest,
      target: payload.target,
      runs: runs.filter((row) => payload.aud.nodes.includes(row.node) && !isOver(row)).map(namesOf),
      existing: true,
    };
  }

  /**
   * Cancels have room of their own: a fleet that is full of work can still be told to stop. One signer's do not take
   * it from another's, who may be the only one that may cancel this.
   */
  async #checkRoom(
    { payload, keyids }: VerifiedCancel,
    target: TargetRecord | undefined,
    more: number,
  ): Promise<void> {
    const { db } = this.#deps.store;
    const { waiting } = await db
      .selectFrom('cancel_messages')
      .select(({ fn }) => fn.countAll<number>().as('waiting'))
      .where('outcome', 'is', null)
      .executeTakeFirstOrThrow();
    const kept = await db
      .selectFrom('cancellations')
      .select(['id', 'realm', 'keyids', 'may_cancel_any'])
      .where('target', '=', payload.target)
      .execute();
    const others = kept.filter((cancel) => target === undefined || mayCancel(cancel, target));
    const own = others.filter((cancel) => signersOf(cancel).some((key) => keyids.includes(key)));
    const hasRoom =
      others.length < LIMITS.cancelsPerTargetMax && own.length < LIMITS.cancelsPerSignerMax;
    if (waiting + more <= LIMITS.pendingMax && hasRoom) return;
    throw new HyphaError(
      'E_RATE',
      `cannot take cancel ${payload.id}: ${waiting} cancels wait for their nodes, ${others.length} are for the same target, ${own.length} of them by the same key`,
      { hint: 'wait until nodes are back: hypha node list' },
    );
  }

  async #isKnown(digest: string): Promise<boolean> {
    const row = await this.#deps.store.db
      .selectFrom('cancellations')
      .select('digest')
      .where('digest', '=', digest)
      .executeTakeFirst();
    return row !== undefined;
  }

  #runsOf(target: string): Promise<RunRow[]> {
    return this.#deps.store.db
      .selectFrom('runs')
      .selectAll()
      .where('digest', '=', target)
      .orderBy('run')
      .execute();
  }
}

/** On every node it is for, the run has committed or ended: there is nothing to keep it for. */
function answerOver(
  { digest, payload }: VerifiedCancel,
  aimed: readonly RunRow[],
): CancellationAccepted {
  if (aimed.some(isCancelled)) {
    return { cancellation: digest, target: payload.target, runs: [], existing: true };
  }
  const states = aimed.map((row) => ({ run: row.run, node: row.node, state: stateOf(row) }));
  const first = states[0];
  throw new HyphaError(
    'E_TOO_LATE',
    `cannot cancel ${payload.target}: run ${first?.run} is ${first?.state}${aimed.length > 1 ? `, ${aimed.length} runs in all` : ''}`,
    { details: { runs: states } },
  );
}

/**
 * Those that have a run of the target that is not over, or may get one: none when it is over on all. Throws
 * `E_AUDIENCE`.
 */
function nodesToTell(
  { payload }: VerifiedCancel,
  target: TargetRecord | undefined,
  aimed: readonly RunRow[],
): readonly string[] {
  const over = new Set(aimed.filter(isOver).map(({ node }) => node));
  const nodes = payload.aud.nodes.filter(
    (node) => !over.has(node) && (target === undefined || target.nodes.includes(node)),
  );
  if (nodes.length > 0 || over.size > 0) return nodes;
  throw new HyphaError('E_AUDIENCE', `cancel ${payload.id} names no node of its target`, {
    where: { path: 'aud.nodes' },
  });
}

/** A run that only counts as expired is not over: its node may have taken it all the same. */
function isOver(row: RunRow): boolean {
  if (isGuessed(row)) return guessOf(row)?.code !== 'E_EXPIRED';
  const state = stateOf(row);
  return state === 'committed' || isTerminal(state);
}

function isCancelled(row: RunRow): boolean {
  if (isGuessed(row)) return guessOf(row)?.code === 'E_CANCELLED';
  return stateOf(row) === 'cancelled';
}

function namesOf({ run, node }: RunRow): { run: string; node: string } {
  return { run, node };
}

export interface CancellationsDeps {
  readonly store: Store<CoordinatorDb>;
  readonly verifier: Verifier;
  readonly authority: AuthorityMirror;
  readonly heads: LogMirror;
  readonly follower: LedgerFollower;
  readonly changes: ChangeFeed;
  readonly bell: Doorbell;
  readonly clock: Clock;
  /** After `exp`, how long a message may still be answered, milliseconds. */
  readonly expiryGraceMs: number;
}
