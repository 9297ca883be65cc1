/** Follows runs live until each has finished, through lost connections. */
import { followStream, type RunsClient, runEventsPath } from '@hypha/client';
import { EMPTY_RUN_FOLD, foldRunEvent, JournalEvent, Problem, type RunView } from '@hypha/protocol';
import { EXIT } from './exit-code.ts';
import { describeError } from './output.ts';
import { describeEvent } from './run-narrative.ts';
import { locateProblem } from './script-place.ts';
import type { Session } from './session.ts';

export interface WatchedRun {
  readonly run: string;
  /** Shown before each line when there are several; empty otherwise. */
  readonly label: string;
  readonly reader: RunsClient;
}

/**
 * Shows steps as they become durable. Ctrl-C detaches: the runs go on. Answers the exit code: 0 when
 * all succeeded (or were left running on purpose), 1 otherwise.
 */
export async function watchRuns(session: Session, runs: readonly WatchedRun[]): Promise<number> {
  const detach = new AbortController();
  const onInterrupt = () => detach.abort();
  process.once('SIGINT', onInterrupt);
  try {
    const ends = await Promise.all(runs.map((run) => watchRun(session, run, detach.signal)));
    if (detach.signal.aborted) {
      session.output.note('detached; the work goes on. To come back:');
      for (const { run } of runs) session.output.note(`  hypha run events ${run}`);
      return EXIT.ok;
    }
    return ends.every((end) => end === 'succeeded') ? EXIT.ok : EXIT.failedRun;
  } finally {
    process.off('SIGINT', onInterrupt);
  }
}

async function watchRun(
  session: Session,
  { run, label, reader }: WatchedRun,
  signal: AbortSignal,
): Promise<RunView['state'] | undefined> {
  const { output } = session;
  const say = (text: string) => {
    const line = label === '' ? text : `${label}  ${text}`;
    // A structured answer is one document: the steps go to stderr then.
    if (output.format === 'table') output.line(line);
    else output.note(line);
  };
  let isLost = false;
  const stream = followStream(reader.http, {
    path: runEventsPath(run),
    signal,
    onLost: (error) => {
      if (error !== undefined && !isLost) {
        output.note(`${error.message}; trying again, Ctrl-C detaches`);
      }
      isLost ||= error !== undefined;
    },
  });
  let fold = EMPTY_RUN_FOLD;
  for await (const { event, data } of stream) {
    isLost = false;
    if (event === 'state') {
      const ended = await endOfUndelivered(reader, run);
      if (ended === undefined) continue;
      say(await describeEnd(reader, ended));
      return ended.state;
    }
    const journaled = JournalEvent.parse(JSON.parse(data));
    const { body } = journaled;
    fold = foldRunEvent(fold, journaled);
    const text = describeEvent(body, output, fold);
    if (text !== undefined) say(text);
    if (body.type !== 'finished') continue;
    const problem = Problem.safeParse(body.problem);
    if (problem.success) say(describeError(await locateProblem(reader, run, problem.data)));
    return body.state;
  }
  return undefined;
}

/** A run the node refused, or that never reached it, ends without a journal. */
async function endOfUndelivered(reader: RunsClient, run: string): Promise<RunView | undefined> {
  const view = await reader.run(run);
  return view.state === 'rejected' || view.state === 'cancelled' ? view : undefined;
}

async function describeEnd(reader: RunsClient, view: RunView): Promise<string> {
  if (view.problem === null) return view.state;
  return `${view.state}\n${describeError(await locateProblem(reader, view.run, view.problem))}`;
}
