import type { RunsClient } from '@hypha/client';
import {
  type Envelope,
  fromBase64,
  isHyphaError,
  parseStrictJson,
  ScriptPayload,
  type SubmissionAccepted,
} from '@hypha/protocol';
import { fetchAuthority } from './commands/authority.ts';
import type { Session } from './session.ts';
import { nodeAddress, type ViaFlags } from './via.ts';

export interface SubmittedRun {
  readonly run: string;
  /** Name of the node where this context knows one, its id otherwise. */
  readonly name: string;
  readonly reader: RunsClient;
}

/**
 * Sends an envelope to the coordinator, or to each node of its audience. The authority is stapled where
 * it can be had, so that a node that was cut off can catch up (design §8).
 */
export async function submitWork(
  session: Session,
  envelope: Envelope,
  flags: ViaFlags,
): Promise<{ accepted: SubmissionAccepted; readers: SubmittedRun[] }> {
  const authority = await stapledAuthority(session);
  const submission = { envelope, ...(authority === undefined ? {} : { authority }) };
  const nameOf = (id: string) => session.context.nodes.find((node) => node.id === id)?.name ?? id;
  if (flags.via !== 'node') {
    const reader = session.coordinator();
    const accepted = await reader.submit(submission);
    return {
      accepted,
      readers: accepted.runs.map(({ run, node }) => ({ run, name: nameOf(node), reader })),
    };
  }
  const readers: SubmittedRun[] = [];
  let accepted: SubmissionAccepted | undefined;
  for (const url of addressesOf(session, envelope, flags)) {
    const reader = session.nodeAt(url);
    const answer = await reader.submit(submission);
    readers.push(...answer.runs.map(({ run, node }) => ({ run, name: nameOf(node), reader })));
    accepted = { ...answer, runs: [...(accepted?.runs ?? []), ...answer.runs] };
  }
  return { accepted: accepted ?? { revision: '', runs: [] }, readers };
}

function addressesOf(session: Session, envelope: Envelope, flags: ViaFlags): string[] {
  if (flags.nodeUrl !== undefined) return [flags.nodeUrl];
  // An envelope too broken to name its audience still goes out, so that the node's refusal is seen.
  const payload = readPayload(envelope);
  if (payload === undefined) return [nodeAddress(session.context, undefined).url];
  return payload.aud.nodes.map((id) => nodeAddress(session.context, id).url);
}

function readPayload(envelope: Envelope): ScriptPayload | undefined {
  try {
    return ScriptPayload.parse(parseStrictJson(fromBase64(envelope.payload)));
  } catch {
    return undefined;
  }
}

async function stapledAuthority(session: Session): Promise<Envelope[] | undefined> {
  try {
    return [...(await fetchAuthority(session)).updates];
  } catch (error) {
    if (isHyphaError(error, 'E_UNAVAILABLE')) return undefined;
    throw error;
  }
}
