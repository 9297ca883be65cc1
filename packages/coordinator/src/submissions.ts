import {
  checkModeFits,
  checkScriptSyntax,
  envelopeDigest,
  HyphaError,
  isHyphaError,
  runIdOf,
  type Submission,
  type SubmissionAccepted,
  type VerifiedScript,
  type Verifier,
  verifyScript,
} from '@hypha/protocol';
import { isStoreConflict, type Store } from '@hypha/store';
import type { AuthorityMirror } from './authority-mirror.ts';
import { readCancels } from './cancel-memory.ts';
import { readCandidates } from './candidates.ts';
import type { ChangeFeed } from './change-feed.ts';
import type { Clock } from './clock.ts';
import type { Doorbell } from './doorbell.ts';
import type { Fleet } from './fleet.ts';
import { inboxTopic } from './inbox-message.ts';
import type { LedgerFollower } from './ledger-follower.ts';
import { COORDINATOR_LIMITS as LIMITS } from './limits.ts';
import type { LogMirror } from './log-mirror.ts';
import { type Placement, place, type Verdict } from './placement.ts';
import { checkGeneration, checkUnspent } from './replay-check.ts';
import { newRun, type RunRow } from './run-record.ts';
import type { CoordinatorDb } from './schema.ts';
import type { SettlingNodes } from './settling-nodes.ts';
import { acceptanceWrites } from './submission-writes.ts';

/** Accepts signed scripts: verified, placed among the nodes they name, and durable before the answer. */
export class Submissions {
  readonly #deps: SubmissionsDeps;

  constructor(deps: SubmissionsDeps) {
    this.#deps = deps;
  }

  /**
   * Revision, runs and messages are one durable write before this resolves. If we die before it, nothing
   * is kept; after it, the messages are delivered by whoever opens the store next. The same envelope
   * again answers the same runs, also after `exp`.
   *
   * Throws the codes of `verifyScript`, `E_AUTHORITY` (stapled updates), `E_UNSUPPORTED`,
   * `E_SCRIPT_SYNTAX`, `E_REPLAY`, `E_SUPERSEDED`, `E_CONFLICT`, `E_NO_PLACEMENT`, `E_UNAVAILABLE`;
   * nothing is kept then.
   */
  async submit(submission: Submission): Promise<SubmissionAccepted> {
    const { verifier, authority, follower } = this.#deps;
    const digest = envelopeDigest(verifier, submission.envelope, 'script');
    if (!(await this.#isPlaced(digest))) await follower.freshen();
    await authority.growFromStaple(submission.authority ?? []);
    await this.#deps.heads.offer(submission.checkpoint);
    for (let attempt = 1; ; attempt++) {
      const existing = await this.#isPlaced(digest);
      const script = await this.#verifyFresh(submission, existing);
      if (existing) return await this.#answerExisting(script);
      try {
        return await this.#accept(script);
      } catch (error) {
        // Another submission came between our reads and our write: judge by what is there now.
        if (!isStoreConflict(error) || attempt === LIMITS.writeAttemptsMax) throw error;
      }
    }
  }

  /** Asks the ledger once more for a key or an update of this very second. */
  async #verifyFresh(submission: Submission, existing: boolean): Promise<VerifiedScript> {
    try {
      return this.#verify(submission, existing);
    } catch (error) {
      if (!isHyphaError(error, 'E_UNKNOWN_KEY') && !isHyphaError(error, 'E_STALE_VIEW'))
        throw error;
      await this.#deps.follower.learnAuthority();
      return this.#verify(submission, existing);
    }
  }

  #verify(submission: Submission, existing: boolean): VerifiedScript {
    const { verifier, authority, heads } = this.#deps;
    const script = verifyScript(verifier, {
      envelope: submission.envelope,
      authority: authority.get(),
      profile: 'admit',
      nowSeconds: heads.nowSeconds(),
      checkpoint: heads.newest,
      // Ids and nonces are checked against the store, in `checkUnspent`.
      replay: { hasDigest: () => existing, findId: () => undefined, findNonce: () => undefined },
    });
    if (existing) return script;
    // Its nodes would refuse it after our 202.
    checkModeFits(script.payload);
    const { script: signed } = script.payload;
    if (signed !== undefined) checkScriptSyntax(signed.source);
    return script;
  }

  async #accept(script: VerifiedScript): Promise<SubmissionAccepted> {
    const { store, clock, changes, bell } = this.#deps;
    await checkUnspent(store, script);
    await checkGeneration(store, script);
    await this.#checkRoom(script);
    const cancels = await readCancels(store, script.digest);
    // Nodes that told us of this revision have it already: they count, and need no message.
    const known = await this.#runsOf(script.digest);
    const chosen = await this.#place(script, known);
    const nowMs = clock.nowMs();
    const runs = chosen.map(({ id }) => this.#newRun(script, id, nowMs));
    await store.write(
      acceptanceWrites({ store, changes, script, runs, cancels, nowMs }, this.#deps.expiryGraceMs),
    );
    changes.ring();
    for (const { node } of runs) bell.ring(inboxTopic(node));
    return {
      revision: script.payload.id,
      runs: [...known, ...runs].map(({ run, node }) => ({ run, node })),
    };
  }

  async #place(script: VerifiedScript, known: readonly RunRow[]): Promise<readonly Verdict[]> {
    const { payload } = script;
    const has = new Set(known.map(({ node }) => node));
    const count = Math.max(0, payload.aud.count - has.size);
    const others = payload.aud.nodes.filter((id) => !has.has(id));
    const placement = await this.#deps.settling.place(count, () =>
      this.#judge(script, others, count),
    );
    if (placement.chosen.length === count) return placement.chosen;
    const [first] = placement.refused;
    const why = first === undefined ? '' : `; ${first.name}: ${first.reason}`;
    throw new HyphaError(
      'E_NO_PLACEMENT',
      `revision ${payload.id} asks for ${payload.aud.count} nodes of ${payload.aud.nodes.length}, ${has.size + placement.chosen.length} fit${why}`,
      {
        where: { path: 'aud' },
        details: {
          asked: payload.aud.count,
          fit: has.size + placement.chosen.length,
          nodes: placement.refused,
        },
      },
    );
  }

  async #judge(
    { payload }: VerifiedScript,
    ids: readonly string[],
    count: number,
  ): Promise<Placement> {
    const { store, fleet, follower, clock } = this.#deps;
    const strangers = ids.filter((id) => fleet.find(id) === undefined);
    await Promise.all(strangers.map((id) => follower.learnNode(id)));
    const views = ids.flatMap((id) => fleet.find(id) ?? []);
    const unknown = ids.filter((id) => fleet.find(id) === undefined);
    const candidates = await readCandidates(store, views, {
      nowMs: clock.nowMs(),
      predecessors: fleet.predecessors(),
      deployment: payload,
    });
    const { chosen, refused } = place(candidates, {
      realm: payload.realm,
      mode: payload.mode,
      count,
      labels: {},
      resources: payload.limits.resources,
      mustBeReachable: false,
    });
    const notFound = unknown.map(
      (id): Verdict => ({
        id,
        name: id,
        code: 'E_NOT_FOUND',
        reason: 'it is not known: hypha node list',
      }),
    );
    return { chosen, refused: [...refused, ...notFound].slice(0, LIMITS.refusedListedMax) };
  }

  async #checkRoom({ payload }: VerifiedScript): Promise<void> {
    const { waiting } = await this.#deps.store.db
      .selectFrom('inbox_messages')
      .select(({ fn }) => fn.countAll<number>().as('waiting'))
      .executeTakeFirstOrThrow();
    if (waiting + payload.aud.count <= LIMITS.pendingMax) return;
    throw new HyphaError('E_RATE', `cannot take revision ${payload.id}: ${waiting} messages wait`, {
      hint: 'wait until nodes are back: hypha node list',
    });
  }

  #newRun({ digest, payload }: VerifiedScript, node: string, nowMs: number): RunRow {
    const run = runIdOf(this.#deps.verifier, digest, node);
    return newRun({ run, node, digest, payload, nowMs });
  }

  async #answerExisting({ digest, payload }: VerifiedScript): Promise<SubmissionAccepted> {
    const runs = await this.#runsOf(digest);
    return {
      revision: payload.id,
      runs: runs.map(({ run, node }) => ({ run, node })),
      existing: true,
    };
  }

  #runsOf(digest: string): Promise<RunRow[]> {
    return this.#deps.store.db
      .selectFrom('runs')
      .selectAll()
      .where('digest', '=', digest)
      .orderBy('run')
      .execute();
  }

  /** Whether this very envelope already runs on as many nodes as it asks for. */
  async #isPlaced(digest: string): Promise<boolean> {
    const row = await this.#deps.store.db
      .selectFrom('revisions')
      .select(({ selectFrom, fn }) => [
        'wanted',
        selectFrom('runs')
          .select(fn.countAll<number>().as('count'))
          .where('digest', '=', digest)
          .as('runs'),
      ])
      .where('digest', '=', digest)
      .executeTakeFirst();
    return row !== undefined && (row.runs ?? 0) >= row.wanted;
  }
}

export interface SubmissionsDeps {
  readonly store: Store<CoordinatorDb>;
  readonly verifier: Verifier;
  readonly authority: AuthorityMirror;
  readonly heads: LogMirror;
  readonly fleet: Fleet;
  readonly follower: LedgerFollower;
  readonly changes: ChangeFeed;
  readonly bell: Doorbell;
  readonly settling: SettlingNodes;
  readonly clock: Clock;
  /** After `exp`, how long a message may still be answered, milliseconds. */
  readonly expiryGraceMs: number;
}
