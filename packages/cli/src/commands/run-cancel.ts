import { type CancellationAccepted, HyphaError, isTerminal, type RunView } from '@hypha/protocol';
import type { Command } from 'commander';
import {
  type CancelFlags,
  type CancelTarget,
  findCancelled,
  isRevision,
  sendCancel,
  targetsOf,
  whileCancelStands,
} from '../cancellation.ts';
import { EXIT, exitCodeOf } from '../exit-code.ts';
import { collect, parseRunId } from '../option-parsers.ts';
import { describeError } from '../output.ts';
import { proofOf } from '../receipt-proof.ts';
import { followRuns } from '../run-watch.ts';
import { type Session, sessionOf } from '../session.ts';
import { readerOf, viaOptions } from '../via.ts';

interface Flags extends CancelFlags {
  readonly detach?: true;
}

export function cancelCommand(run: Command): void {
  viaOptions(run.command('cancel <run-or-revision...>'))
    .description('end runs before their commit; what they did is undone')
    .option(
      '--key <file-or-name>',
      'sign with this key; default: that of this context',
      collect,
      [],
    )
    .option('--detach', 'do not wait for the end')
    .action(async (ids: string[], flags: Flags, command: Command) => {
      const session = sessionOf(command);
      for (const id of ids) if (!isRevision(id)) parseRunId(id);
      const found = await tryEach(ids, (id) => findCancelled(session, id, flags));
      const cancelled = await tryEach(targetsOf(found.done.flat(), flags), async (target) => {
        await cancel(session, target, flags);
        return target.runs;
      });
      const errors = [...found.errors, ...cancelled.errors];
      const runs = cancelled.done.flat();
      const [only, second] = errors;
      if (runs.length === 0 && only !== undefined && second === undefined) throw only;
      for (const error of errors) session.output.note(describeError(error));
      const refused = Math.max(EXIT.ok, ...errors.map(exitCodeOf));
      process.exitCode = refused;
      if (flags.detach === true || runs.length === 0) return;
      process.exitCode = Math.max(refused, await showEnds(session, runs, flags));
    });
}

/** One that fails keeps none of the others from being tried. */
async function tryEach<T, R>(
  items: readonly T[],
  work: (item: T) => Promise<R>,
): Promise<{ readonly done: readonly R[]; readonly errors: readonly HyphaError[] }> {
  const done: R[] = [];
  const errors: HyphaError[] = [];
  for (const item of items) {
    try {
      done.push(await work(item));
    } catch (error) {
      if (!(error instanceof HyphaError)) throw error;
      errors.push(error);
    }
  }
  return { done, errors };
}

async function cancel(session: Session, target: CancelTarget, flags: Flags): Promise<void> {
  const { output } = session;
  const names = target.runs.map(({ run }) => run).join(', ');
  output.note(`cancelling ${names}`);
  const accepted = await explainTooLate(target, () => sendCancel(session, target, flags));
  if (accepted.existing === true) output.note('cancelled before: it stays so');
  if (flags.detach === true) {
    output.item(accepted, [
      ['cancellation', accepted.cancellation],
      ['of', names],
    ]);
  }
}

/** What can be done instead depends on how far the run is. */
async function explainTooLate(
  { runs }: CancelTarget,
  send: () => Promise<CancellationAccepted>,
): Promise<CancellationAccepted> {
  try {
    return await send();
  } catch (error) {
    if (!(error instanceof HyphaError) || error.code !== 'E_TOO_LATE') throw error;
    const [run] = runs;
    throw new HyphaError(error.code, error.message, { cause: error, hint: adviceFor(run) });
  }
}

function adviceFor(run: RunView | undefined): string {
  if (run === undefined) return 'hypha run list';
  const { deployment, state } = run;
  if (state === 'failed' || state === 'rejected') {
    return `it has ended already, nothing is left to cancel: hypha run show ${run.run}`;
  }
  return `what it made is the deployment now: apply an older script again, or hypha destroy ${deployment}`;
}

/** 0 when every run ended cancelled, or goes on unseen. */
async function showEnds(session: Session, runs: readonly RunView[], flags: Flags): Promise<number> {
  const reader = readerOf(session, flags);
  const several = runs.length > 1;
  const ends = await followRuns(
    session,
    runs.map(({ run }) => ({
      ...{ run, reader, label: several ? run : '' },
      prove: proofOf(session, reader, run, flags.via),
      guard: (signal: AbortSignal) => whileCancelStands(reader, run, signal),
    })),
    { tells: 'end' },
  );
  if (session.output.format !== 'table') {
    for (const { run } of runs) session.output.item(await reader.run(run), []);
  }
  if (ends === undefined) return EXIT.ok;
  const isCancelled = ends.every((state) => isTerminal(state) && state === 'cancelled');
  return isCancelled ? EXIT.ok : EXIT.failedRun;
}
