import type { NodeView, RunView } from '@hypha/protocol';
import type { Session } from './session.ts';
import type { TouchedWork, UnshownWork } from './signed-work.ts';

export interface NodeKnowledge {
  readonly id: string;
  readonly name: string;
  readonly state: NodeView['state'];
  /** As the node's newest report at the ledger says; null before its first. */
  readonly authoritySeq: number | null;
  readonly knows: boolean;
  /** Why it does not. */
  readonly why: string;
}

export interface RevocationReport {
  readonly authoritySeq: number;
  /** Every reachable node knows, and nothing of it goes on there. */
  readonly complete: boolean;
  readonly nodes: readonly NodeKnowledge[];
  readonly stopped: readonly RunView[];
  /** Not ended yet. */
  readonly active: readonly RunView[];
  /** Null when the coordinator could not be asked. */
  readonly touched: readonly (TouchedWork & { readonly nodeName: string })[] | null;
  /** What the coordinator does not show and receipts in the log tell of. */
  readonly unshown: readonly (UnshownWork & { readonly nodeName: string })[];
  /** Deployment → names to give new values. */
  readonly rotate: Readonly<Record<string, readonly string[]>>;
}

/** Tables for people, one document for programs. */
export function showRevocation({ output }: Session, report: RevocationReport): void {
  const { authoritySeq, complete, nodes, stopped, active, touched, rotate } = report;
  const missing = nodes.filter(({ knows }) => !knows).length;
  output.item(report, [
    ['update', String(authoritySeq)],
    ['known to', `${nodes.length - missing} of ${nodes.length} nodes`],
    [
      'stopped',
      `${stopped.length} run${stopped.length === 1 ? '' : 's'}${active.length === 0 ? '' : `, ${active.length} not ended yet`}`,
    ],
    ['complete', complete ? 'yes' : 'no: not every reachable node knows, or a run goes on'],
  ]);
  if (output.format !== 'table') return;
  output.line('');
  output.list(
    nodes,
    [
      { title: 'node', cell: ({ name }) => name },
      { title: 'knows', cell: ({ knows }) => (knows ? 'yes' : output.style('red', 'NO')) },
      { title: 'why not', cell: ({ why }) => why || '-' },
    ],
    'no nodes',
  );
  showRuns(output, [...stopped, ...active]);
  showTouched(output, touched);
  for (const { deployment, generation, nodeName, run } of report.unshown) {
    output.line(
      `the coordinator does not show who signed ${deployment} generation ${generation} on ${nodeName} (${run})`,
    );
  }
  for (const [deployment, names] of Object.entries(rotate)) {
    output.line(`give new values to the secrets of ${deployment}: ${names.join(', ')}`);
  }
}

function showRuns(output: Session['output'], runs: readonly RunView[]): void {
  if (runs.length === 0) return;
  output.line('');
  output.list(
    runs,
    [
      { title: 'run', cell: ({ run }) => run },
      { title: 'deployment', cell: ({ realm, deployment }) => `${realm}/${deployment}` },
      { title: 'state', cell: ({ state }) => state },
      { title: 'code', cell: ({ problem }) => problem?.code ?? '-' },
    ],
    '',
  );
}

function showTouched(output: Session['output'], touched: RevocationReport['touched']): void {
  output.line('');
  if (touched === null) {
    output.line('the coordinator cannot be asked: what it had a part in is not known');
    return;
  }
  output.list(
    touched,
    [
      { title: 'it made', cell: ({ deployment }) => deployment },
      { title: 'gen', cell: ({ generation }) => String(generation) },
      { title: 'state', cell: ({ mode, state }) => `${mode} ${state}` },
      { title: 'node', cell: ({ nodeName }) => nodeName },
      { title: 'resources', cell: ({ resources }) => resources.join(', ') || '-' },
      { title: 'secrets', cell: ({ secrets }) => secrets.join(', ') || '-' },
    ],
    'no newest revision of any deployment is its work',
  );
}
