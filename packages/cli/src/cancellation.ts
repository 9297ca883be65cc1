/** Ends runs early: a signed cancel for the envelope they came with. */
import { setTimeout as delay } from 'node:timers/promises';
import type { RunsClient } from '@hypha/client';
import {
  buildCancelPayload,
  type CancellationAccepted,
  envelopeDigest,
  HyphaError,
  isHyphaError,
  LIMITS,
  type RunView,
  signCancel,
} from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import { systemEntropy } from './authority-signing.ts';
import { parseRunId } from './option-parsers.ts';
import { authorityView } from './revision-draft.ts';
import { assertIsRun } from './run-identity.ts';
import { allPages, type Session } from './session.ts';
import { chooseSigner } from './signing-key.ts';
import { fetchProof, readScriptPayload } from './submission.ts';
import { nodeAddress, readerOf, type ViaFlags } from './via.ts';

export interface CancelFlags extends ViaFlags {
  readonly key: readonly string[];
}

/** Runs of one envelope. */
export interface CancelTarget {
  readonly digest: string;
  readonly realm: string;
  readonly runs: readonly RunView[];
}

/** Newest runs among which those of a revision are looked for. */
const RUNS_MAX = 5000;

/**
 * A run by id, or all runs of a revision. Throws `E_ARGUMENT` for what is neither, `E_NOT_FOUND` for what is not
 * there.
 */
export function findCancelled(
  session: Session,
  id: string,
  flags: ViaFlags,
): Promise<readonly RunView[]> {
  return findRuns(readerOf(session, flags), id);
}

/** By envelope; asked at the nodes themselves, each node's own. Twice the same run is once. */
export function targetsOf(runs: readonly RunView[], flags: ViaFlags): readonly CancelTarget[] {
  const views = [...new Map(runs.map((view) => [view.run, view])).values()];
  const groups = Map.groupBy(views, ({ envelopeDigest, node }) =>
    flags.via === 'node' ? `${envelopeDigest} ${node}` : envelopeDigest,
  );
  return [...groups.values()].flatMap((of) => {
    const [first] = of;
    if (first === undefined) return [];
    return [{ digest: first.envelopeDigest, realm: first.realm, runs: of }];
  });
}

/** Rather than a run. */
export function isRevision(id: string): boolean {
  return id.startsWith('rev_');
}

/** What is signed ends the work of this digest, so whoever is asked must not choose another one. */
async function findRuns(reader: RunsClient, id: string): Promise<readonly RunView[]> {
  if (isRevision(id)) return await findRevision(reader, id);
  const view = await reader.run(parseRunId(id));
  assertIsRun(view, id);
  return [view];
}

async function findRevision(reader: RunsClient, revision: string): Promise<readonly RunView[]> {
  const runs = await allPages((cursor) => reader.listRuns({ cursor, limit: 500 }), RUNS_MAX);
  const found = runs.filter((run) => run.revision === revision);
  const [first] = found;
  if (first === undefined) {
    throw new HyphaError('E_NOT_FOUND', `no run of revision ${revision}`, {
      hint: 'find it with: hypha deployment history NAME',
    });
  }
  const envelope = await reader.envelope(first.run);
  const digest = envelopeDigest(nodeVerifier, envelope, 'script');
  const isOne = found.every((run) => run.envelopeDigest === digest);
  if (!isOne || readScriptPayload(envelope)?.id !== revision) {
    throw new HyphaError('E_CONFLICT', `what is told of ${revision} is not of it`, {
      hint: 'do not believe this coordinator; ask the node itself: --via node',
    });
  }
  for (const view of found) assertIsRun(view, view.run);
  return found;
}

/**
 * Signs and sends it; durable where it was sent when it resolves. Throws `E_TOO_LATE` for what is past its commit
 * point, `E_SCOPE` for what others signed.
 */
export async function sendCancel(
  session: Session,
  { digest, realm, runs }: CancelTarget,
  flags: CancelFlags,
): Promise<CancellationAccepted> {
  const nodes = [...new Set(runs.map(({ node }) => node))];
  const authority = await authorityView(session);
  const draft = {
    ...{ realm, nodes, target: digest, authority },
    // A node that is away takes it when it is back.
    lifetimeSeconds: LIMITS.lifetimeSecondsMax,
  };
  const payload = buildCancelPayload(draft, systemEntropy(session.nowMs()));
  const signers =
    flags.key.length === 0
      ? [session.operator()]
      : flags.key.map((name) => chooseSigner(session, name));
  const submission = { envelope: signCancel(payload, signers), ...(await fetchProof(session)) };
  if (flags.via !== 'node' && flags.nodeUrl === undefined) {
    return await session.coordinator().cancel(submission);
  }
  const url = flags.nodeUrl ?? nodeAddress(session.context, nodes[0]).url;
  return await session.nodeAt(url).cancel(submission);
}

/** Between two looks whether a cancel still stands. */
const STANDING_POLL_MS = 2_000;

/**
 * Looks until the signal aborts whether the cancel of a run still stands. Throws `E_UNAVAILABLE` when its node did not
 * take it and the run goes on.
 */
export async function whileCancelStands(
  reader: RunsClient,
  run: string,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    const view = await viewIfThere(reader, run, signal);
    if (view?.cancelRequestedAt === undefined && GOES_ON.has(view?.state)) {
      throw new HyphaError(
        'E_UNAVAILABLE',
        `the cancel of ${run} came to nothing: its node refused it, or was away for too long; the run goes on`,
        { hint: `cancel it again, or at its node itself: hypha run cancel ${run} --via node` },
      );
    }
    await delay(STANDING_POLL_MS, undefined, { signal }).catch(() => undefined);
  }
}

/** In these a run does not end by itself at once. */
const GOES_ON: ReadonlySet<RunView['state'] | undefined> = new Set([
  'accepted',
  'queued',
  'running',
]);

/** Undefined while whoever is asked is away. */
async function viewIfThere(
  reader: RunsClient,
  run: string,
  signal: AbortSignal,
): Promise<RunView | undefined> {
  try {
    return await reader.run(run, { signal });
  } catch (error) {
    if (signal.aborted || (isHyphaError(error) && error.retryable)) return undefined;
    throw error;
  }
}
