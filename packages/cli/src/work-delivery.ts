/** Sends signed work, shows it live, and says it succeeded only when the node's receipt proves it. */
import {
  digestOf,
  HyphaError,
  Json,
  type ReceiptPayload,
  type RunView,
  type Submission,
  type SubmissionAccepted,
} from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import type { Command } from 'commander';
import { collectBundle } from './audit-bundle.ts';
import { reportVerdict } from './commands/audit.ts';
import { EXIT } from './exit-code.ts';
import { parseDuration } from './option-parsers.ts';
import { checkAccepted, proveEnd, type SentWork, unlessAlone } from './receipt-proof.ts';
import { type ClaimedEnd, followRuns, type WatchDeadline, type WatchStyle } from './run-watch.ts';
import type { Session } from './session.ts';
import { payloadOf } from './signed-payload.ts';
import { readScriptPayload, type SubmittedRun, submitWork } from './submission.ts';
import { type ViaFlags, viaOptions } from './via.ts';

export interface DeliveryFlags extends ViaFlags {
  readonly detach?: true;
  readonly timeout?: string;
}

/** After the last moment a run can have ended, for its receipt to be signed and carried here. */
const CARRY_MS = 60_000;

export function deliveryOptions(command: Command): Command {
  return viaOptions(command)
    .option('--detach', 'do not wait for the end')
    .option(
      '--timeout <time>',
      'wait so long for the receipts, like 90s; default: until none can come any more',
    );
}

/** How the end of a run is shown, once it is proven to have succeeded. */
export interface DeliveryStyle extends WatchStyle {
  /** Instead of the output and the audit of the receipt. @param output JSON text that was committed */
  readonly show?: (run: SubmittedRun, output: string | undefined) => Promise<void>;
}

/** Sets the exit code: 0 only for what is proven to have succeeded. */
export async function deliverWork(
  session: Session,
  submission: Submission,
  flags: DeliveryFlags,
  { show, ...style }: DeliveryStyle = {},
): Promise<void> {
  const { output } = session;
  const deadline = deadlineOf(session, submission, flags);
  const { accepted, readers } = await submitWork(session, submission, flags);
  const sent = sentWork(submission);
  if (sent !== undefined) checkAccepted(expectedOf(sent, flags), accepted);
  if (accepted.existing === true) output.note('accepted before: these are the same runs');
  if (flags.detach === true) return output.item(accepted, fieldsOf(accepted));
  const several = readers.length > 1;
  const ends = new Map<string, ProvenEnd>();
  const states = await followRuns(
    session,
    readers.map((submitted) => ({
      run: submitted.run,
      reader: submitted.reader,
      label: several ? submitted.name : '',
      prove: async (claimed, signal) => {
        if (sent === undefined) return;
        const receipt = await unlessAlone(session, flags.via, () =>
          proveEnd(session, sent.digest, submitted, claimed, signal),
        );
        ends.set(submitted.run, { ...claimed, receipt });
      },
    })),
    { deadline, ...style },
  );
  if (states === undefined) {
    if (output.format !== 'table') output.item(accepted, []);
    return;
  }
  const isDone = states.every((state) => state === 'succeeded');
  process.exitCode = isDone ? EXIT.ok : EXIT.failedRun;
  for (const submitted of readers) {
    const end = ends.get(submitted.run);
    if (!isDone) await showRun(session, submitted, end);
    else if (show === undefined) await showResult(session, submitted, end);
    else await show(submitted, end?.output);
  }
}

/** As told, and the receipt it was held against; undefined when a node was asked that nobody can vouch for now. */
interface ProvenEnd extends ClaimedEnd {
  readonly receipt: ReceiptPayload | undefined;
}

/** An envelope that is no script is refused by whoever gets it, and proves nothing. */
function sentWork({ envelope }: Submission): SentWork | undefined {
  const payload = readScriptPayload(envelope);
  if (payload === undefined) return undefined;
  const digest = digestOf(nodeVerifier, envelope.payloadType, payloadOf(envelope));
  return { digest, aud: payload.aud };
}

/** Sent to nodes one by one, each that is asked runs it. */
function expectedOf(sent: SentWork, flags: DeliveryFlags): SentWork {
  if (flags.via !== 'node') return sent;
  const count = flags.nodeUrl === undefined ? sent.aud.nodes.length : 1;
  return { ...sent, aud: { ...sent.aud, count } };
}

/** Admission ends at `exp`, and a run that was admitted then lasts as long as it may. */
function deadlineOf(
  session: Session,
  { envelope }: Submission,
  { timeout, via }: DeliveryFlags,
): WatchDeadline {
  const nowMs = session.nowMs();
  const payload = readScriptPayload(envelope);
  const lastMs = payload === undefined ? nowMs : payload.exp * 1000 + payload.limits.wallMs;
  const atMs =
    timeout === undefined
      ? Math.max(nowMs, lastMs) + CARRY_MS
      : nowMs + parseDuration(timeout, '--timeout') * 1000;
  const takenBy = via === 'node' ? 'the node' : 'the coordinator';
  return { atMs, inMs: atMs - nowMs, takenBy };
}

function fieldsOf(accepted: SubmissionAccepted): (readonly [string, string])[] {
  return [
    ['revision', accepted.revision],
    ...accepted.runs.map(({ run, node }) => ['run', `${run} on ${node}`] as const),
  ];
}

/** What the script returned, and the receipt checked down to genesis. */
async function showResult(
  session: Session,
  submitted: SubmittedRun,
  end: ProvenEnd | undefined,
): Promise<void> {
  const { output } = session;
  const { simulated } = await showRun(session, submitted, end);
  if (simulated) output.note('simulated: steps marked so made nothing real');
  if (output.format === 'table') await auditQuietly(session, submitted.run, submitted.reader);
}

/** Which run it was, however it ended, to look at it later; for programs all that is known of it. */
async function showRun(
  { output }: Session,
  { run, reader }: SubmittedRun,
  end: ProvenEnd | undefined,
): Promise<RunView> {
  const view = await reader.run(run);
  const text = end?.output;
  // What the receipt says stands in front of what whoever was asked says.
  const { state, steps } = end?.receipt ?? view;
  const value = text === undefined ? null : Json.parse(JSON.parse(text));
  if (output.format !== 'table') output.item({ ...view, run, state, steps, output: value }, []);
  else {
    if (text !== undefined) output.line(`output        ${text}`);
    output.line(`run           ${run}`);
  }
  return view;
}

async function auditQuietly(
  session: Session,
  run: string,
  reader: SubmittedRun['reader'],
): Promise<void> {
  try {
    const bundle = await collectBundle(session, reader, run);
    if (reportVerdict(session, bundle, session.context.genesis) !== EXIT.ok) {
      process.exitCode = EXIT.refused;
    }
  } catch (error) {
    // The receipt holds; a ledger that is away only delays its place in the log.
    if (!(error instanceof HyphaError)) throw error;
    session.output.note(`not in the log yet: ${error.message}; later: hypha audit export ${run}`);
  }
}
