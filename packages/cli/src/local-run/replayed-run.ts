/** `hypha run replay`: finds the record, leads the script through it and tells what it does. */
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { HyphaError, type JournalBody, type JournalEvent, RunId } from '@hypha/protocol';
import { SandboxPool } from '@hypha/sandbox';
import { EXIT } from '../exit-code.ts';
import { parseRunId } from '../option-parsers.ts';
import { describeError, type Output } from '../output.ts';
import { RunNarrator } from '../run-narrative.ts';
import { stepRows } from '../run-steps.ts';
import { placeError } from '../script-place.ts';
import type { Session } from '../session.ts';
import { readerOf, type ViaFlags } from '../via.ts';
import {
  type CallsMade,
  findReplayDifference,
  type ReplayDifference,
  type ReplayedScript,
  recordedEnd,
  shownPlace,
  showReplayDifference,
} from './replay-report.ts';
import { type ReplayEnd, type RunRecording, replayRun } from './replay-run.ts';
import { fetchRecording, readBundleRecording, readFileRecording } from './run-recording.ts';

export interface ReplayFlags extends ViaFlags {
  readonly script?: string;
  readonly step?: true;
  readonly journal?: string;
  readonly envelope?: string;
}

/**
 * Answers the exit code: 0 when the script goes as recorded.
 * @param id a run or the file of an audit bundle; undefined: the files that the flags name
 */
export async function replayRecorded(
  session: Session,
  id: string | undefined,
  flags: ReplayFlags,
): Promise<number> {
  return await replay(session, await openRecording(session, id, flags), flags);
}

async function openRecording(
  session: Session,
  id: string | undefined,
  flags: ReplayFlags,
): Promise<RunRecording> {
  const { journal, envelope } = flags;
  if (journal !== undefined && envelope !== undefined && id === undefined) {
    return readFileRecording({ journal, envelope });
  }
  if (journal !== undefined || envelope !== undefined || id === undefined) {
    throw new HyphaError('E_ARGUMENT', 'a replay takes a run, or --journal and --envelope', {
      hint: 'hypha run replay RUN; find it with: hypha run list',
    });
  }
  if (!RunId.safeParse(id).success && existsSync(id)) return readBundleRecording(id);
  return await fetchRecording(session, readerOf(session, flags), parseRunId(id));
}

async function replay(
  session: Session,
  recording: RunRecording,
  flags: ReplayFlags,
): Promise<number> {
  const { output } = session;
  const { payload } = recording;
  const signed = payload.script?.source ?? '';
  const source = flags.script === undefined ? signed : await compile(flags.script);
  await using pool = new SandboxPool();
  // Quietly first: it tells where each recorded call was made.
  const before =
    flags.script === undefined ? undefined : (await lead(pool, recording, signed)).script;
  output.note(
    `replaying ${recording.run}: ${payload.mode} of ${payload.realm}/${payload.deployment} generation ${payload.generation}, nothing has an effect`,
  );
  using pause = flags.step === true ? new Pause(output) : undefined;
  const teller = new Teller(output, recording, source);
  const { end, script } = await lead(pool, recording, source, { teller, pause });
  const difference = findReplayDifference(recording, end, script, before ?? script);
  report(output, recording, { end, difference, script });
  return difference === undefined ? EXIT.ok : EXIT.failedRun;
}

async function compile(file: string): Promise<string> {
  // Only here: the bundler would slow every other command down.
  const { compileScript } = await import('../compile/index.ts');
  return (await compileScript(resolve(file))).source;
}

async function lead(
  pool: SandboxPool,
  recording: RunRecording,
  source: string,
  shown: { readonly teller?: Teller; readonly pause?: Pause | undefined } = {},
): Promise<{ end: ReplayEnd; script: ReplayedScript }> {
  const calls = new Map<number, CallsMade extends ReadonlyMap<number, infer Call> ? Call : never>();
  const end = await replayRun(recording, source, {
    pool,
    watch: {
      onTurn: (turn) => {
        for (const call of turn.calls) calls.set(call.call, call);
        shown.teller?.tellTurn(turn);
      },
      onOutcome: async ({ call }) => {
        await shown.pause?.next(`outcome of step ${call}`);
        shown.teller?.tellOutcome(call);
      },
    },
  });
  return { end, script: { source, calls } };
}

type Turn = Parameters<Parameters<typeof replayRun>[2]['watch']['onTurn']>[0];

/** Says each step when the script comes by it. */
class Teller {
  readonly #output: Output;
  readonly #source: string;
  readonly #narrator: RunNarrator;
  // step → its events on record
  readonly #recorded = new Map<number, JournalBody[]>();

  constructor(output: Output, { events }: RunRecording, source: string) {
    this.#output = output;
    this.#source = source;
    this.#narrator = new RunNarrator(output);
    for (const { body } of events) {
      if (!('step' in body)) continue;
      this.#recorded.set(body.step, [...(this.#recorded.get(body.step) ?? []), body]);
    }
  }

  tellTurn({ calls, logs }: Turn): void {
    for (const { message, fields } of logs) this.#say({ type: 'log', line: 1, message, fields });
    for (const { call, verb, name, place } of calls) {
      const at =
        place === undefined ? undefined : shownPlace(this.#source, place.line, place.column);
      const intent = this.#bodyOf(call, 'step-intent');
      const what =
        intent === undefined
          ? `step ${String(call).padStart(3)}      ${verb} ${name ?? ''} … not on record`
          : this.#narrator.tell(intent, false);
      this.#output.line(`${what}${at === undefined ? '' : this.#output.style('dim', `   ${at}`)}`);
    }
  }

  tellOutcome(step: number): void {
    const outcome = this.#bodyOf(step, 'step-result') ?? this.#bodyOf(step, 'step-error');
    if (outcome !== undefined) this.#say(outcome);
  }

  #bodyOf(step: number, type: JournalBody['type']): JournalBody | undefined {
    return this.#recorded.get(step)?.find((body) => body.type === type);
  }

  #say(body: JournalBody): void {
    const text = this.#narrator.tell(body, false);
    if (text !== undefined) this.#output.line(text);
  }
}

/** Enter by Enter; at the end of the input it goes on by itself. */
class Pause {
  readonly #output: Output;
  readonly #input = createInterface({ input: process.stdin });
  readonly #lines: AsyncIterator<string>;
  #isOver = false;

  constructor(output: Output) {
    this.#output = output;
    this.#lines = this.#input[Symbol.asyncIterator]();
  }

  async next(what: string): Promise<void> {
    if (this.#isOver) return;
    this.#output.note(`-- Enter: ${what}`);
    this.#isOver = (await this.#lines.next()).done === true;
  }

  [Symbol.dispose](): void {
    this.#input.close();
  }
}

function report(
  output: Output,
  recording: RunRecording,
  found: {
    readonly end: ReplayEnd;
    readonly difference: ReplayDifference | undefined;
    readonly script: ReplayedScript;
  },
): void {
  const { end, difference, script } = found;
  const recorded = recordedEnd(recording);
  if (output.format !== 'table') {
    output.item(
      {
        run: recording.run,
        same: difference === undefined,
        end: end.state,
        recorded: recorded.side,
        difference: difference ?? null,
        steps: stepsOf(recording.events, script),
      },
      [],
    );
    return;
  }
  if (difference !== undefined) {
    output.line(output.style('red', 'differs from the record, first here:'));
    showReplayDifference(output, difference);
    return;
  }
  if (end.state === 'beyond') {
    output.line(
      `as recorded, up to step ${end.step}: there the record ends, ${recorded.side.what}`,
    );
    return;
  }
  if (end.state === 'failed') output.line(describeError(placeError(script.source, end.problem)));
  else output.line(`output        ${end.output}`);
  output.line(output.style('green', 'as recorded, to the end'));
}

function stepsOf(events: readonly JournalEvent[], { source, calls }: ReplayedScript) {
  return stepRows(events.map(({ body }) => body)).map((row) => {
    const place = calls.get(row.step)?.place;
    const at = place === undefined ? undefined : shownPlace(source, place.line, place.column);
    return { ...row, ...(at === undefined ? {} : { at }) };
  });
}
