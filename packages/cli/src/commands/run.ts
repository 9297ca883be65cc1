import type { RunsClient } from '@hypha/client';
import { isTerminal, NodeId, type RunView } from '@hypha/protocol';
import type { Command } from 'commander';
import { parseRunId } from '../option-parsers.ts';
import { ago, describeError, type Output } from '../output.ts';
import { showPlan } from '../plan-table.ts';
import { proofOf } from '../receipt-proof.ts';
import { describeEvent } from '../run-narrative.ts';
import { watchRuns } from '../run-watch.ts';
import { locateProblem } from '../script-place.ts';
import { allPages, type Session, selectNodes, sessionOf } from '../session.ts';
import { nodeAddress, readerOf, type ViaFlags, viaOptions } from '../via.ts';
import { listNodes } from './node.ts';
import { replayCommand } from './replay.ts';
import { cancelCommand } from './run-cancel.ts';
import { undoCommand } from './run-undo.ts';

async function showRun(output: Output, reader: RunsClient, run: RunView): Promise<void> {
  const problem =
    run.problem === null ? undefined : await locateProblem(reader, run.run, run.problem);
  output.item(run, [
    ['run', run.run],
    ['deployment', `${run.realm}/${run.deployment} generation ${run.generation} (${run.mode})`],
    ['node', run.node],
    [
      'state',
      `${output.style(run.state === 'succeeded' ? 'green' : 'bold', run.state)}${run.simulated ? ' (simulated)' : ''}`,
    ],
    ...timesOf(run),
    ['steps', String(run.steps)],
    ['accepted', new Date(run.acceptedAt).toISOString()],
    ['started', run.startedAt === null ? '-' : new Date(run.startedAt).toISOString()],
    ['ended', run.endedAt === null ? '-' : new Date(run.endedAt).toISOString()],
    ...(run.message === '' ? [] : [['message', run.message] as const]),
    ...(problem === undefined ? [] : [['problem', describeError(problem)] as const]),
  ]);
}

/** What it waits for, and whether it was told to end. */
function timesOf({ waitingUntil, cancelRequestedAt }: RunView): readonly [string, string][] {
  const at = (ms: number) => new Date(ms).toISOString();
  return [
    ...(waitingUntil === undefined ? [] : [['waits until', at(waitingUntil)] as [string, string]]),
    ...(cancelRequestedAt === undefined
      ? []
      : [['cancel asked', at(cancelRequestedAt)] as [string, string]]),
  ];
}

/** `running, waits until …`, `undoing, cancel asked`. */
function stateText(run: RunView): string {
  const isOver = isTerminal(run.state);
  const { waitingUntil, cancelRequestedAt } = run;
  return [
    run.simulated ? `${run.state} (simulated)` : run.state,
    ...(waitingUntil === undefined || isOver
      ? []
      : [`waits until ${new Date(waitingUntil).toISOString()}`]),
    ...(cancelRequestedAt === undefined || isOver ? [] : ['cancel asked']),
  ].join(', ');
}

export function listRunTable(output: Output, runs: readonly RunView[], nowMs: number): void {
  output.list(
    runs,
    [
      { title: 'run', cell: (run) => run.run },
      { title: 'deployment', cell: (run) => `${run.realm}/${run.deployment}` },
      { title: 'gen', cell: (run) => String(run.generation) },
      { title: 'mode', cell: (run) => run.mode },
      { title: 'state', cell: stateText },
      { title: 'steps', cell: (run) => String(run.steps) },
      { title: 'accepted', cell: (run) => ago(run.acceptedAt, nowMs) },
      { title: 'node', cell: (run) => run.node },
    ],
    'no runs',
  );
}

async function showJournal(session: Session, reader: RunsClient, run: string): Promise<void> {
  const events = await allPages((cursor) => reader.journal(run, { cursor, limit: 500 }));
  session.output.list(
    events,
    [
      { title: 'seq', cell: (event) => String(event.seq) },
      { title: 'at', cell: (event) => new Date(event.at).toISOString() },
      { title: 'epoch', cell: (event) => String(event.epoch) },
      { title: 'event', cell: (event) => event.body.type },
      { title: 'hash', cell: (event) => event.hash.slice(0, 12) },
      { title: 'what', cell: (event) => describeEvent(event.body, session.output) ?? '' },
    ],
    'no events',
  );
}

/** Throws `E_NOT_FOUND` for a name that no node has. */
async function findNodeId(session: Session, name: string, { via }: ViaFlags): Promise<NodeId> {
  const id = NodeId.safeParse(name);
  if (id.success) return id.data;
  if (via === 'node') return NodeId.parse(nodeAddress(session.context, name).id);
  const [found] = selectNodes(await listNodes(session), [name]);
  return NodeId.parse(found?.id);
}

type Reader = (session: Session, reader: RunsClient, run: string, flags: ViaFlags) => Promise<void>;

const READERS: Readonly<Record<string, { description: string; read: Reader }>> = {
  show: {
    description: 'one run: state, and why it failed',
    read: async (session, reader, run) =>
      await showRun(session.output, reader, await reader.run(run)),
  },
  events: {
    description: 'follow a run until it ends',
    read: async (session, reader, run, { via }) => {
      const prove = proofOf(session, reader, run, via);
      process.exitCode = await watchRuns(session, [{ run, label: '', reader, prove }]);
      if (session.output.format !== 'table') await showJournal(session, reader, run);
    },
  },
  journal: {
    description: 'every event of a run, hash-chained',
    read: showJournal,
  },
  output: {
    description: 'what the script returned',
    read: async (session, reader, run) => {
      const { output } = await reader.output(run);
      session.output.item(output, [['output', JSON.stringify(output, null, 2)]]);
    },
  },
  plan: {
    description: 'what it was going to change, or changes, step by step',
    read: async (session, reader, run) => {
      const plan = await reader.plan(run);
      showPlan(session.output, plan, { node: plan.node });
    },
  },
  receipt: {
    description: 'the signed receipt, as the DSSE envelope',
    read: async (session, reader, run) => session.output.jsonLine(await reader.receipt(run)),
  },
};

interface ListOptions extends ViaFlags {
  deployment?: string;
  node?: string;
  status?: string;
}

export function runCommand(program: Command): void {
  const run = program.command('run').description('one revision on one node');
  viaOptions(run.command('list'))
    .description('runs, newest first')
    .option('--deployment <name>')
    .option('--node <name>', 'by name or id')
    .option('--status <state>', 'accepted, running, succeeded, failed …')
    .action(async (options: ListOptions, command: Command) => {
      const session = sessionOf(command);
      const reader = readerOf(session, options);
      const { deployment, status } = options;
      const node =
        options.node === undefined ? undefined : await findNodeId(session, options.node, options);
      const runs = await allPages(
        (cursor) => reader.listRuns({ deployment, node, state: status, cursor, limit: 500 }),
        5000,
      );
      listRunTable(session.output, runs, session.nowMs());
    });
  for (const [name, { description, read }] of Object.entries(READERS)) {
    viaOptions(run.command(`${name} <run>`))
      .description(description)
      .action((id: string, options: ViaFlags, command: Command) => {
        const session = sessionOf(command);
        return read(session, readerOf(session, options), parseRunId(id), options);
      });
  }
  cancelCommand(run);
  undoCommand(run);
  replayCommand(run);
}
