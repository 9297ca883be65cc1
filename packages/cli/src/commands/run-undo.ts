import {
  type BodyOf,
  HyphaError,
  type JournalEvent,
  type Leftover,
  type RunId,
  type RunView,
} from '@hypha/protocol';
import type { Command } from 'commander';
import { z } from 'zod';
import { EXIT } from '../exit-code.ts';
import { parseRunId } from '../option-parsers.ts';
import { draftTask } from '../revision-draft.ts';
import { assertIsRun } from '../run-identity.ts';
import { allPages, type Session, sessionOf } from '../session.ts';
import { readerOf } from '../via.ts';
import { type SendFlags, sendWork, taskSendOptions } from '../work-sending.ts';

/** The whole task: what is undone, and how, is in the journal of the run that failed. */
const SOURCE = `import { undo } from 'hypha';
export default ({ run }) => undo(run);
`;

const Undone = z.object({
  undone: z.int(),
  leftovers: z.array(z.object({ kind: z.string(), name: z.string(), reason: z.string() })),
});

export function undoCommand(run: Command): void {
  taskSendOptions(run.command('undo <run>'))
    .description(
      'undo what a failed or cancelled run left that was signed to be kept (--on-failure keep)',
    )
    .action(async (id: string, flags: SendFlags, command: Command) => {
      const session = sessionOf(command);
      const target = parseRunId(id);
      const reader = readerOf(session, flags);
      const view = await reader.run(target);
      assertIsRun(view, target);
      assertKept(view);
      const events = await allPages((cursor) => reader.journal(target, { cursor, limit: 500 }));
      const { realm, deployment, node } = view;
      const task = { realm, deployment, source: SOURCE, caps: capsOf(events) };
      const values = { input: { run: target }, secrets: {} };
      const work = await draftTask(session, task, values, { ...flags, node: [node] });
      await sendWork(session, work, flags, {
        show: async (done, output) => showUndone(session, done.run, output),
      });
    });
}

function assertKept({ run, state }: RunView): void {
  if (state === 'failed' || state === 'cancelled') return;
  throw new HyphaError(
    'E_NOT_FOUND',
    `${run} is ${state}: only a run that failed or was cancelled leaves work undone`,
    {
      hint:
        state === 'succeeded'
          ? 'apply an older script again, or hypha destroy NAME'
          : `hypha run show ${run}`,
    },
  );
}

/** Undoing needs what doing needed: the capability of a verb is the kind before its dot. */
function capsOf(events: readonly JournalEvent[]): string[] {
  const verbs = events
    .map(({ body }) => body)
    .filter((body): body is BodyOf<'step-intent'> => body.type === 'step-intent')
    .filter((body) => body.class === 'ensure' || body.class === 'transition')
    .map(({ verb }) => verb.split('.')[0] ?? '');
  return [...new Set(verbs)].sort();
}

async function showUndone(session: Session, run: RunId, text: string | undefined): Promise<void> {
  const { output } = session;
  const done = Undone.safeParse(JSON.parse(text ?? 'null'));
  if (!done.success) {
    throw new HyphaError('E_CONFLICT', `${run} returned something else than what it undid`, {
      cause: done.error,
    });
  }
  const { undone, leftovers } = done.data;
  output.item({ run, undone, leftovers }, [
    ['undone', `${undone} steps`],
    ...leftovers.map((item) => ['left over', leftoverText(item)] as const),
    ['run', run],
  ]);
  if (undone + leftovers.length === 0) output.note('nothing was left to undo');
  if (leftovers.length > 0) process.exitCode = EXIT.failedRun;
}

function leftoverText({ kind, name, reason }: Omit<Leftover, 'rid'>): string {
  return `${kind} ${name}: ${reason}`;
}
