import type { RunsClient } from '@hypha/client';
import {
  type Envelope,
  fromBase64,
  isHyphaError,
  parseStrictJson,
  ScriptPayload,
  type Submission,
  type SubmissionAccepted,
} from '@hypha/protocol';
import { fetchAuthority } from './authority-chain.ts';
import type { Session } from './session.ts';
import { nodeAddress, type ViaFlags } from './via.ts';

export interface SubmittedRun {
  readonly run: string;
  readonly node: string;
  /** Name of the node where this context knows one, its id otherwise. */
  readonly name: string;
  readonly reader: RunsClient;
}

/** Newest updates that travel with a submission: a node that was away for longer asks the ledger. */
const STAPLED_UPDATES_MAX = 200;

/**
 * Sends an envelope to the coordinator, or to each node of its audience. Authority and checkpoint are stapled
 * as the ledger has them now, else as the file carries them, so that a node that was cut off can catch up
 * (design §8).
 */
export async function submitWork(
  session: Session,
  carried: Submission,
  flags: ViaFlags,
): Promise<{ accepted: SubmissionAccepted; readers: SubmittedRun[] }> {
  const submission = await staple(session, carried);
  const nameOf = (id: string) => session.context.nodes.find((node) => node.id === id)?.name ?? id;
  const readersOf = ({ runs }: SubmissionAccepted, reader: RunsClient): SubmittedRun[] =>
    runs.map(({ run, node }) => ({ run, node, name: nameOf(node), reader }));
  if (flags.via !== 'node') {
    const reader = session.coordinator();
    const accepted = await reader.submit(submission);
    return { accepted, readers: readersOf(accepted, reader) };
  }
  const readers: SubmittedRun[] = [];
  let accepted: SubmissionAccepted | undefined;
  for (const url of addressesOf(session, submission.envelope, flags)) {
    const reader = session.nodeAt(url);
    const answer = await reader.submit(submission);
    readers.push(...readersOf(answer, reader));
    accepted = { ...answer, runs: [...(accepted?.runs ?? []), ...answer.runs] };
  }
  return { accepted: accepted ?? { revision: '', runs: [] }, readers };
}

function addressesOf(session: Session, envelope: Envelope, flags: ViaFlags): string[] {
  if (flags.nodeUrl !== undefined) return [flags.nodeUrl];
  // An envelope too broken to name its audience still goes out, so that the node's refusal is seen.
  const payload = readScriptPayload(envelope);
  if (payload === undefined) return [nodeAddress(session.context, undefined).url];
  return payload.aud.nodes.map((id) => nodeAddress(session.context, id).url);
}

/** Undefined for what is no script, or a broken one. */
export function readScriptPayload(envelope: Envelope): ScriptPayload | undefined {
  try {
    return ScriptPayload.parse(parseStrictJson(fromBase64(envelope.payload)));
  } catch {
    return undefined;
  }
}

async function staple(session: Session, carried: Submission): Promise<Submission> {
  const { authority = carried.authority, ...proof } = await fetchProof(session);
  return {
    ...carried,
    ...proof,
    ...(authority === undefined ? {} : { authority: authority.slice(-STAPLED_UPDATES_MAX) }),
  };
}

/** The whole authority and the newest checkpoint, as far as the ledger can be asked for them now. */
export async function fetchProof(
  session: Session,
): Promise<Pick<Submission, 'authority' | 'checkpoint'>> {
  const [updates, checkpoint] = await Promise.all([
    unlessAway(async () => (await fetchAuthority(session)).updates),
    unlessAway(async () => (await session.ledger().checkpoint()).checkpoint),
  ]);
  return {
    ...(updates === undefined ? {} : { authority: [...updates] }),
    ...(checkpoint === undefined ? {} : { checkpoint }),
  };
}

/** Undefined while the ledger is away, or has no key of its own yet. */
async function unlessAway<T>(ask: () => Promise<T>): Promise<T | undefined> {
  try {
    return await ask();
  } catch (error) {
    if (isHyphaError(error, 'E_UNAVAILABLE')) return undefined;
    throw error;
  }
}
