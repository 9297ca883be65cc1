import type { VerifiedScript } from '@hypha/protocol';
import type { Store, Write } from '@hypha/store';
import { sql } from 'kysely';
import { cancelOfRun, cancelsUnchanged, type TargetCancels, withCancel } from './cancel-memory.ts';
import type { ChangeFeed } from './change-feed.ts';
import { expiresAt } from './resend-schedule.ts';
import { type RunRow, spentTokensOf, viewOf } from './run-record.ts';
import type { CoordinatorDb } from './schema.ts';

/** The part of a verified script that is kept. */
export type SignedScript = Pick<VerifiedScript, 'payload' | 'digest' | 'envelope' | 'keyids'>;

interface Acceptance {
  readonly store: Store<CoordinatorDb>;
  readonly changes: ChangeFeed;
  readonly script: SignedScript;
  /** Runs that are new. */
  readonly runs: readonly RunRow[];
  /** What was there to cancel them before they came. */
  readonly cancels: TargetCancels;
  readonly nowMs: number;
}

/**
 * Everything a 202 promises, as one list. Each row count is a condition that was read before; one that no
 * longer holds undoes the whole list (`StoreConflict`), and the reader judges again.
 */
export function acceptanceWrites(acceptance: Acceptance, graceMs: number): readonly Write[] {
  const { store, script, runs, nowMs } = acceptance;
  const messages = runs.map(({ run, node }) => {
    const { delivery } = cancelIn(acceptance, node);
    return {
      query: store.db.insertInto('inbox_messages').values({
        id: run,
        node,
        run,
        attempts: 0,
        due_at: 0,
        expires_at: delivery === 'lost' ? nowMs : expiresAt(script.payload.exp, graceMs),
        held: delivery === 'clear' ? 0 : 1,
      }),
    };
  });
  return [
    ...revisionWrites(acceptance, 'placed'),
    ...generationWrites(store, script),
    ...runWrites(acceptance, (row) => withCancel(row, cancelIn(acceptance, row.node))),
    ...messages,
  ];
}

/**
 * What is kept of a revision a node tells of: for readers, and so that nobody can use its id or nonce
 * again. `mark`: also its generation, which only a script that verifies now may move.
 */
export function learnedWrites(acceptance: Acceptance, mark: boolean): readonly Write[] {
  return [
    ...revisionWrites(acceptance, 'learned'),
    ...(mark ? generationWrites(acceptance.store, acceptance.script, 'if-newer') : []),
    ...runWrites(acceptance, (row) => {
      const cancel = cancelIn(acceptance, row.node);
      // Its node has it and will not take the cancel: it goes on.
      return cancel.delivery === 'lost' ? row : withCancel(row, cancel);
    }),
  ];
}

function cancelIn({ script, cancels }: Acceptance, node: string) {
  return cancelOfRun(cancels, { realm: script.payload.realm, keyids: script.keyids }, node);
}

function revisionWrites(
  { store, script, cancels, nowMs }: Acceptance,
  how: 'placed' | 'learned',
): readonly Write[] {
  const { payload, digest, envelope, keyids } = script;
  const placedAt = how === 'placed' ? nowMs : null;
  const insert = store.db.insertInto('revisions').values({
    digest,
    id: payload.id,
    realm: payload.realm,
    deployment: payload.deployment,
    generation: payload.generation,
    mode: payload.mode,
    resources: JSON.stringify(payload.limits.resources),
    wanted: payload.aud.count,
    exp: payload.exp,
    message: payload.message,
    envelope: JSON.stringify(envelope),
    known_at: nowMs,
    placed_at: placedAt,
  });
  const revision: Write =
    how === 'placed'
      ? {
          query: insert.onConflict((conflict) =>
            conflict
              .column('digest')
              .doUpdateSet({ placed_at: nowMs })
              .where('revisions.placed_at', 'is', null),
          ),
          expectRows: 1,
        }
      : { query: insert.onConflict((conflict) => conflict.column('digest').doNothing()) };
  const tokens = spentTokensOf(payload, keyids).map((token): Write => {
    const spend = store.db.insertInto('spent_tokens').values({ token, digest });
    // A node may know a revision whose id another node, or we, know under another digest.
    if (how === 'learned') {
      return { query: spend.onConflict((conflict) => conflict.column('token').doNothing()) };
    }
    return {
      query: spend.onConflict((conflict) =>
        conflict.column('token').doUpdateSet({ digest }).where('spent_tokens.digest', '=', digest),
      ),
      expectRows: 1,
    };
  });
  return [revision, cancelsUnchanged(store, cancels), ...tokens];
}

function generationWrites(
  store: Store<CoordinatorDb>,
  { payload, digest }: SignedScript,
  condition: 'must-be-newest' | 'if-newer' = 'must-be-newest',
): readonly Write[] {
  const { realm, deployment, generation, mode } = payload;
  if (mode !== 'apply' && mode !== 'destroy') return [];
  const query = store.db
    .insertInto('generation_marks')
    .values({ realm, deployment, generation, digest })
    .onConflict((conflict) =>
      conflict
        .columns(['realm', 'deployment'])
        .doUpdateSet({ generation, digest })
        .where(
          sql<boolean>`generation_marks.generation < ${generation}
            or (generation_marks.generation = ${generation} and generation_marks.digest = ${digest})`,
        ),
    );
  return [condition === 'if-newer' ? { query } : { query, expectRows: 1 }];
}

function runWrites(
  { store, changes, runs, nowMs }: Acceptance,
  marked: (row: RunRow) => RunRow,
): readonly Write[] {
  return runs
    .map(marked)
    .flatMap((row): Write[] => [
      { query: store.db.insertInto('runs').values(row), expectRows: 1 },
      changes.record({ type: 'run', view: viewOf(row) }, nowMs),
    ]);
}
