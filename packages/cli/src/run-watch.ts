/** Follows runs live until each has finished, through lost connections. */
import { followStream, type RunsClient, runEventsPath } from '@hypha/client';
import {
  EMPTY_RUN_FOLD,
  eventHash,
  foldRunEvent,
  GENESIS_HASH,
  HyphaError,
  isKeptLeftover,
  JournalEvent,
  Problem,
  type RunView,
} from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import { EXIT } from './exit-code.ts';
import { describeError } from './output.ts';
import { RunNarrator } from './run-narrative.ts';
import { locateProblem } from './script-place.ts';
import type { Session } from './session.ts';

export interface WatchedRun {
  readonly run: string;
  /** Shown before each line when there are several; empty otherwise. */
  readonly label: string;
  readonly reader: RunsClient;
  /**
   * Checks the end that is claimed before it is shown; throws when it does not hold. Absent for a reader who
   * takes the word of whoever is asked.
   */
  readonly prove?: (claimed: ClaimedEnd, signal: AbortSignal) => Promise<void>;
  /** Beside it, until the signal aborts: throws when its end need not be waited for any more. */
  readonly guard?: (signal: AbortSignal) => Promise<void>;
}

/** How a run ended, as whoever was asked tells it. */
export interface ClaimedEnd {
  readonly state: RunView['state'];
  /** Hash of the last event that was shown; undefined when they do not form one unbroken chain. */
  readonly journalHead: string | undefined;
  /** JSON text that was committed; undefined when nothing was. */
  readonly output: string | undefined;
}

/** Until when runs may be silent. Absent: for ever. */
export interface WatchDeadline {
  /** Epoch milliseconds. */
  readonly atMs: number;
  /** In how long that is, milliseconds. */
  readonly inMs: number;
  /** Who took the work, for the error: `the coordinator`. */
  readonly takenBy: string;
}

/** `setTimeout` takes no more; a deadline further off is none. */
const TIMER_MS_MAX = 2 ** 31 - 1;

/** What is told of a run while it is followed. */
export interface WatchStyle {
  /** `end`: only what undoes it, and how it ended; `failure`: the same, of a run that fails. Default: all. */
  readonly tells?: 'all' | 'end' | 'failure';
}

/** How each run ended, in their order; undefined after Ctrl-C: they go on. */
export type RunEnds = readonly RunView['state'][] | undefined;

/**
 * Shows steps as they become durable. Ctrl-C detaches: the runs go on. Answers the exit code: 0 when
 * all succeeded (or were left running on purpose), 1 otherwise.
 * @throws HyphaError `E_UNAVAILABLE` when a run has not ended by the deadline; what `prove` and `guard` throw
 */
export async function watchRuns(
  session: Session,
  runs: readonly WatchedRun[],
  options: WatchStyle & { readonly deadline?: WatchDeadline } = {},
): Promise<number> {
  const ends = await followRuns(session, runs, options);
  if (ends === undefined) return EXIT.ok;
  return ends.every((end) => end === 'succeeded') ? EXIT.ok : EXIT.failedRun;
}

/** The same, for whom another end is the right one. Throws what `watchRuns` does. */
export async function followRuns(
  session: Session,
  runs: readonly WatchedRun[],
  { deadline, tells = 'all' }: WatchStyle & { readonly deadline?: WatchDeadline } = {},
): Promise<RunEnds> {
  const detach = new AbortController();
  const onInterrupt = () => detach.abort();
  process.once('SIGINT', onInterrupt);
  const signal =
    deadline === undefined
      ? detach.signal
      : AbortSignal.any([
          detach.signal,
          AbortSignal.timeout(Math.min(Math.max(0, deadline.inMs), TIMER_MS_MAX)),
        ]);
  try {
    // All of them end before a failure is told: one that is lied about must not hide the others.
    const settled = await Promise.allSettled(
      runs.map((run) => watchGuarded(session, run, { signal, tells })),
    );
    if (detach.signal.aborted) {
      sayDetached(session, runs);
      return undefined;
    }
    const ends = settled.map(endOf);
    const silent = runs.filter((_run, index) => ends[index] === undefined);
    if (deadline !== undefined && silent.length > 0) throw noReceipt(deadline, silent);
    return ends.map((end) => end ?? 'running');
  } finally {
    process.off('SIGINT', onInterrupt);
  }
}

function sayDetached({ output }: Session, runs: readonly WatchedRun[]): void {
  output.note('detached; the work goes on. To come back:');
  for (const { run } of runs) output.note(`  hypha run events ${run}`);
  output.note('To end it, undone as far as it is not committed:');
  output.note(`  hypha run cancel ${runs.map(({ run }) => run).join(' ')}`);
}

function endOf<T>(settled: PromiseSettledResult<T>): T {
  if (settled.status === 'rejected') throw settled.reason;
  return settled.value;
}

function noReceipt({ atMs, takenBy }: WatchDeadline, silent: readonly WatchedRun[]): HyphaError {
  return new HyphaError(
    'E_UNAVAILABLE',
    `no receipt by ${new Date(atMs).toISOString()}: ${takenBy} accepted it and nothing came back`,
    {
      details: silent.map(({ run, label }) => (label === '' ? run : `${run} on ${label}`)),
      hint: `if it ran after all, its receipt comes: hypha run events ${silent[0]?.run ?? 'RUN'}; send it another way: --via node`,
    },
  );
}

interface Watching {
  readonly signal: AbortSignal;
  readonly tells: NonNullable<WatchStyle['tells']>;
}

/** The guard ends with the run, and watching the run with what the guard throws. */
async function watchGuarded(
  session: Session,
  run: WatchedRun,
  { signal: outer, tells }: Watching,
): Promise<RunView['state'] | undefined> {
  const end = new AbortController();
  const signal = AbortSignal.any([outer, end.signal]);
  const stop = () => end.abort();
  const [watched, guarded] = await Promise.allSettled([
    watchRun(session, run, { signal, tells }).finally(stop),
    (run.guard?.(signal) ?? Promise.resolve()).catch((error: unknown) => {
      stop();
      throw error;
    }),
  ]);
  const state = endOf(watched);
  if (state === undefined) endOf(guarded);
  return state;
}

async function watchRun(
  session: Session,
  { run, label, reader, prove }: WatchedRun,
  { signal, tells }: Watching,
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
  const narrator = new RunNarrator(output);
  let fold = EMPTY_RUN_FOLD;
  let journalHead: string | undefined = GENESIS_HASH;
  let committed: string | undefined;
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
    journalHead = followHash(journalHead, journaled);
    if (body.type === 'committed') committed = body.output;
    if (body.type === 'finished') {
      const claimed = { state: body.state, journalHead, output: committed };
      if (!(await isProven(prove, claimed, signal))) return undefined;
    }
    const text = narrator.tell(body, fold.simulated);
    if (text !== undefined && isTold(body, tells)) say(text);
    if (body.type !== 'finished') continue;
    const problem = Problem.safeParse(body.problem);
    if (problem.success) say(describeError(await locateProblem(reader, run, problem.data)));
    if (body.leftovers.some(isKeptLeftover)) {
      output.note(`what it made was kept; undo it with: hypha run undo ${run}`);
    }
    return body.state;
  }
  return undefined;
}

function isTold(body: JournalEvent['body'], tells: NonNullable<WatchStyle['tells']>): boolean {
  if (tells === 'all' || body.type === 'undo-intent' || body.type === 'undo-result') return true;
  return body.type === 'finished' && (tells === 'end' || body.state !== 'succeeded');
}

function followHash(head: string | undefined, event: JournalEvent): string | undefined {
  const holds = event.prev === head && eventHash(nodeVerifier, event) === event.hash;
  return holds ? event.hash : undefined;
}

/** False when there was no time left for it. */
async function isProven(
  prove: WatchedRun['prove'],
  claimed: ClaimedEnd,
  signal: AbortSignal,
): Promise<boolean> {
  try {
    await prove?.(claimed, signal);
    return true;
  } catch (error) {
    if (signal.aborted) return false;
    throw error;
  }
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
