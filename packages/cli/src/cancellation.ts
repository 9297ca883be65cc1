/** Ends runs early: a signed cancel for the envelope they came with. */
import type { RunsClient } from '@hypha/client';
import {
  buildCancelPayload,
  type CancellationAccepted,
  envelopeDigest,
  HyphaError,
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
 * Runs by id, or all runs of a revision. Throws `E_ARGUMENT` for what is neither, `E_NOT_FOUND` for what is not
 * there.
 */
export async function findCancelTargets(
  session: Session,
  ids: readonly string[],
  flags: ViaFlags,
): Promise<readonly CancelTarget[]> {
  const reader = readerOf(session, flags);
  const views = new Map<string, RunView>();
  for (const id of ids) {
    for (const view of await findRuns(reader, id)) views.set(view.run, view);
  }
  const targets = new Map<string, CancelTarget>();
  for (const view of views.values()) {
    const { envelopeDigest: digest, realm } = view;
    const known = targets.get(digest)?.runs ?? [];
    targets.set(digest, { digest, realm, runs: [...known, view] });
  }
  return [...targets.values()];
}

/** What is signed ends the work of this digest, so whoever is asked must not choose another one. */
async function findRuns(reader: RunsClient, id: string): Promise<readonly RunView[]> {
  if (id.startsWith('rev_')) return await findRevision(reader, id);
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
  const draft = { realm, nodes, target: digest, authority };
  const payload = buildCancelPayload(draft, systemEntropy(session.nowMs()));
  const signers =
    flags.key.length === 0
      ? [session.operator()]
      : flags.key.map((name) => chooseSigner(session, name));
  const submission = { envelope: signCancel(payload, signers), ...(await fetchProof(session)) };
  if (flags.via !== 'node' && flags.nodeUrl === undefined) {
    return await session.coordinator().cancel(submission);
  }
  const answers: CancellationAccepted[] = [];
  for (const url of addressesOf(session, nodes, flags)) {
    answers.push(await session.nodeAt(url).cancel(submission));
  }
  const [first] = answers;
  if (first === undefined) throw new HyphaError('E_ARGUMENT', `no node to send the cancel to`);
  return { ...first, runs: answers.flatMap((answer) => answer.runs) };
}

function addressesOf(session: Session, nodes: readonly string[], flags: ViaFlags): string[] {
  if (flags.nodeUrl !== undefined) return [flags.nodeUrl];
  return nodes.map((id) => nodeAddress(session.context, id).url);
}
