/** What a replay found, for people and for programs. */
import type { GuestCall, HyphaError, JournalBody, JournalEvent, Json } from '@hypha/protocol';
import { jsonDifference } from '../json-difference.ts';
import type { Output } from '../output.ts';
import { placeInFile } from '../script-place.ts';
import { committedOf, problemOf, type ReplayEnd, type RunRecording } from './replay-run.ts';

/** One side of a difference: a call, or how the script ended. */
export interface ReplaySide {
  readonly what: string;
  /** In the operator's own file. */
  readonly at?: string;
  readonly args?: Json;
}

export interface ReplayDifference {
  /** Null: in how the script ended. */
  readonly step: number | null;
  readonly recorded: ReplaySide;
  readonly made: ReplaySide;
}

/** Calls a script made, by number. */
export type CallsMade = ReadonlyMap<number, GuestCall>;

/** A script and the calls it made. */
export interface ReplayedScript {
  /** As it ran, with its map. */
  readonly source: string;
  readonly calls: CallsMade;
}

/**
 * The first thing in which a script is not as recorded; undefined when it went as far as the record leads, the same
 * way.
 * @param before the recorded script and its own calls: the record itself holds no places
 */
export function findReplayDifference(
  recording: RunRecording,
  end: ReplayEnd,
  script: ReplayedScript,
  before: ReplayedScript,
): ReplayDifference | undefined {
  const recorded = recordedEnd(recording);
  if (end.state === 'beyond') {
    const { step } = end;
    const isOpen = intentOf(recording.events, step) !== undefined;
    // A run that was ended from outside, or still goes on, has no more to be compared with.
    if (isOpen || !recorded.isScripts) return undefined;
    return { step, recorded: recorded.side, made: callSide(script, step) };
  }
  if (end.state === 'failed' && end.problem.code === 'E_NONDETERMINISM') {
    const step = end.problem.where?.step ?? 0;
    const intent = intentOf(recording.events, step);
    const { args = null } = intent ?? {};
    const side = { what: labelOf(intent), args, ...placeOf(before, step) };
    return { step, recorded: side, made: callSide(script, step) };
  }
  const made = endSide(end, script.source);
  const isSame = recorded.isScripts && recorded.side.what === made.what;
  return isSame ? undefined : { step: null, recorded: recorded.side, made };
}

interface RecordedEnd {
  readonly side: ReplaySide;
  /** The script itself came to this; else it was stopped, or is not over. */
  readonly isScripts: boolean;
}

/** How far the record leads, and what stands at its end. */
export function recordedEnd({ events, payload }: RunRecording): RecordedEnd {
  const committed = committedOf(events);
  if (committed !== undefined) {
    return { side: { what: `returned ${short(committed.output)}` }, isScripts: true };
  }
  const problem = problemOf(events);
  if (problem === undefined) return { side: { what: 'the run is not over' }, isScripts: false };
  const isScripts = problem.where?.line !== undefined || problem.code === 'E_SCRIPT';
  return { side: problemSide(problem, payload.script?.source ?? ''), isScripts };
}

function endSide(end: Exclude<ReplayEnd, { state: 'beyond' }>, source: string): ReplaySide {
  if (end.state === 'committed') return { what: `returned ${short(end.output)}` };
  return problemSide(end.problem, source);
}

function problemSide({ code, message, where }: HyphaError, source: string): ReplaySide {
  const { line, column } = where ?? {};
  const at =
    line === undefined || column === undefined ? undefined : shownPlace(source, line, column);
  return { what: `failed with ${code}: ${message}`, ...(at === undefined ? {} : { at }) };
}

function callSide(script: ReplayedScript, step: number): ReplaySide {
  const call = script.calls.get(step);
  if (call === undefined) return { what: 'no such call' };
  return { what: labelOf(call), args: call.args, ...placeOf(script, step) };
}

function labelOf(
  call: { readonly verb: string; readonly name: string | null } | undefined,
): string {
  if (call === undefined) return 'no such call';
  return call.name === null ? call.verb : `${call.verb} ${call.name}`;
}

function placeOf({ source, calls }: ReplayedScript, step: number): { at?: string } {
  const place = calls.get(step)?.place;
  const at = place === undefined ? undefined : shownPlace(source, place.line, place.column);
  return at === undefined ? {} : { at };
}

/** `web.ts:7:22`. */
export function shownPlace(source: string, line: number, column: number): string | undefined {
  const place = placeInFile(source, { line, column });
  return place === undefined ? undefined : `${place.file}:${place.line}:${place.column}`;
}

function intentOf(events: readonly JournalEvent[], step: number) {
  return events
    .map(({ body }) => body)
    .find(
      (body): body is Extract<JournalBody, { type: 'step-intent' }> =>
        body.type === 'step-intent' && body.step === step,
    );
}

/** Both sides beside each other, and below them the arguments in which they differ. */
export function showReplayDifference(
  output: Output,
  { step, recorded, made }: ReplayDifference,
): void {
  const rows = [
    { part: step === null ? 'the end' : `step ${step}`, recorded: recorded.what, made: made.what },
    { part: 'at', recorded: recorded.at ?? '-', made: made.at ?? '-' },
    ...jsonDifference(recorded.args, made.args)
      .filter(() => recorded.args !== undefined && made.args !== undefined)
      .slice(0, FIELDS_MAX)
      .map(({ path, was, now }) => ({
        part: path === '' ? 'arguments' : path,
        recorded: textOf(was),
        made: textOf(now),
      })),
  ];
  output.list(
    rows,
    [
      { title: '', cell: ({ part }) => part },
      { title: 'recorded', cell: (row) => row.recorded },
      { title: 'made', cell: (row) => row.made },
    ],
    'no difference',
  );
}

const FIELDS_MAX = 20;
const SHOWN_CHARS_MAX = 200;

function textOf(value: Json | undefined): string {
  return value === undefined ? '-' : short(JSON.stringify(value));
}

/** Compared too: what is shown whole when it fits. */
function short(text: string): string {
  return text.length <= SHOWN_CHARS_MAX ? text : `${text.slice(0, SHOWN_CHARS_MAX)}…`;
}
