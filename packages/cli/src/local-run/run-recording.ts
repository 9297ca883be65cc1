/** Where the record of a run comes from: the services, an audit bundle, or two files. */
import { existsSync, readFileSync } from 'node:fs';
import type { RunsClient } from '@hypha/client';
import {
  AdmissionPayload,
  AuditBundle,
  digestOf,
  Envelope,
  firstBrokenEvent,
  fromBase64,
  HyphaError,
  isHyphaError,
  JournalEvent,
  parseJsonAs,
  parseStrictJson,
  runIdOf,
  ScriptPayload,
} from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import { z } from 'zod';
import { allPages, type Session } from '../session.ts';
import { payloadOf } from '../signed-payload.ts';
import { readSigningFile } from '../signing-file.ts';
import type { RunRecording } from './replay-run.ts';

/** What the script saw of its node, where that can be learnt. */
type NodeName = Pick<RunRecording['node'], 'name' | 'labels'>;

/** From coordinator or node. The ledger knows the name and labels of the node, as far as it can be asked. */
export async function fetchRecording(
  session: Session,
  reader: RunsClient,
  run: string,
): Promise<RunRecording> {
  const [envelope, events] = await Promise.all([
    reader.envelope(run),
    allPages((cursor) => reader.journal(run, { cursor, limit: 500 })),
  ]);
  const node = nodeOf(events, run);
  return recordingOf(envelope, events, await findNode(session, node), run);
}

/** @param file of `hypha audit export` */
export function readBundleRecording(file: string): RunRecording {
  const parsed = AuditBundle.safeParse(readJson(file));
  if (!parsed.success) {
    throw new HyphaError('E_ARGUMENT', `${file} is no audit bundle`, {
      hint: 'make one: hypha audit export RUN --out FILE',
      cause: parsed.error,
    });
  }
  const { submission, journal, admission } = parsed.data;
  const { name, labels } = parseJsonAs(AdmissionPayload, fromBase64(admission.payload), {
    code: 'E_PAYLOAD',
    what: `the admission in ${file}`,
  });
  return recordingOf(submission, journal, { name, labels });
}

/** @param files the answers of `hypha run journal RUN -o json`, and the envelope as it was signed */
export function readFileRecording(files: {
  readonly journal: string;
  readonly envelope: string;
}): RunRecording {
  const parsed = z.array(JournalEvent).safeParse(readJson(files.journal));
  if (!parsed.success) {
    throw new HyphaError('E_ARGUMENT', `${files.journal} is no journal`, {
      hint: 'make one: hypha run journal RUN -o json > FILE',
      cause: parsed.error,
    });
  }
  const { submission } = readSigningFile(files.envelope);
  return recordingOf(submission.envelope, parsed.data, undefined);
}

function readJson(file: string): unknown {
  if (!existsSync(file)) {
    throw new HyphaError('E_NOT_FOUND', `there is no file ${file}`, { hint: 'name another file' });
  }
  try {
    return parseStrictJson(new Uint8Array(readFileSync(file)));
  } catch (cause) {
    throw new HyphaError('E_ARGUMENT', `${file} is not JSON`, { cause, hint: 'name another file' });
  }
}

/** Throws `E_CONFLICT` for an envelope and a journal that are not of one run, or a journal that was changed. */
function recordingOf(
  envelope: Envelope,
  events: readonly JournalEvent[],
  known: NodeName | undefined,
  wanted?: string,
): RunRecording {
  const bytes = payloadOf(Envelope.parse(envelope));
  const payload = parseJsonAs(ScriptPayload, bytes, {
    code: 'E_PAYLOAD',
    what: 'what was signed',
    integersOnly: true,
  });
  const [first] = events;
  const run = wanted ?? first?.run ?? 'the run';
  const id = nodeOf(events, run);
  const digest = digestOf(nodeVerifier, envelope.payloadType, bytes);
  const broken = firstBrokenEvent(nodeVerifier, events);
  const isOfRun = events.every((event) => event.run === run);
  if (!isOfRun || runIdOf(nodeVerifier, digest, id) !== run) {
    throw new HyphaError('E_CONFLICT', `journal and envelope are not both of ${run}`, {
      hint: 'take both from one run',
    });
  }
  if (broken !== null) {
    throw new HyphaError('E_CONFLICT', `the journal of ${run} was changed at event ${broken}`, {
      hint: 'fetch it again, from the node itself: --via node',
    });
  }
  const { name, labels } = known ?? { name: id, labels: {} };
  return { run, payload, events, node: { id, name, labels } };
}

/** Throws `E_NOT_FOUND` for a run that has no events. */
function nodeOf(events: readonly JournalEvent[], run: string): string {
  for (const { body } of events) if (body.type === 'accepted') return body.node;
  throw new HyphaError('E_NOT_FOUND', `${run} has no journal: it was never accepted by its node`, {
    hint: `see why: hypha run show ${run}`,
  });
}

/** Undefined while the ledger is away; a script that asks for neither name nor labels does not mind. */
async function findNode(session: Session, id: string): Promise<NodeName | undefined> {
  try {
    const { name, labels } = await session.ledger().node(id);
    return { name, labels };
  } catch (error) {
    if (!isHyphaError(error)) throw error;
    session.output.note(`name and labels of ${id} are not known: ${error.message}`);
    return undefined;
  }
}
