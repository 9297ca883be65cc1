import { type NodeView, ResourceLimits } from '@hypha/protocol';
import type { Store } from '@hypha/store';
import { COORDINATOR_LIMITS as LIMITS } from './limits.ts';
import type { Candidate } from './placement.ts';
import type { CoordinatorDb } from './schema.ts';

/** Runs in these states hold nothing on their node any more. */
const HOLDING_NOTHING = ['failed', 'cancelled', 'rejected'];

const NOTHING: ResourceLimits = { milliCpus: 0, memoryBytes: 0, storageBytes: 0 };

/**
 * Reads what placement needs to know of these nodes beside their records: what they hold of the
 * deployment, what was sent to them since they last reported, and what waits for them.
 */
export async function readCandidates(
  store: Store<CoordinatorDb>,
  nodes: readonly NodeView[],
  ask: { readonly nowMs: number; readonly deployment?: DeploymentName },
): Promise<readonly Candidate[]> {
  const ids = nodes.map(({ id }) => id);
  const [sent, holding, waiting] = await Promise.all([
    readSent(store, ids, ask.nowMs - LIMITS.reportAgeMsMax),
    ask.deployment === undefined ? [] : readHolding(store, ids, ask.deployment),
    readWaiting(store, ids),
  ]);
  return nodes.map((node) => ({
    node,
    held: heldBy(node, holding),
    sent: sentTo(
      node,
      sent.filter((run) => !isOf(run, ask.deployment)),
    ),
    waiting: waiting.get(node.id) ?? 0,
  }));
}

export interface DeploymentName {
  readonly realm: string;
  readonly deployment: string;
}

interface SentRun extends DeploymentName {
  readonly node: string;
  readonly generation: number;
  readonly mode: string;
  readonly submitted_at: number;
  readonly last_seq: number;
  readonly resources: string;
}

function isOf(run: DeploymentName, name: DeploymentName | undefined): boolean {
  return run.realm === name?.realm && run.deployment === name.deployment;
}

function heldBy(node: NodeView, holding: readonly SentRun[]): ResourceLimits | null {
  const run = holding.find((each) => each.node === node.id);
  if (run === undefined || run.mode === 'destroy') return null;
  // Not in the node's last report yet: its `free` was measured without it.
  if (isUnreported(run, node)) return NOTHING;
  return ResourceLimits.parse(JSON.parse(run.resources));
}

/** Only the newest revision of each deployment counts: it takes the place of those before it. */
function sentTo(node: NodeView, sent: readonly SentRun[]): ResourceLimits {
  const newest = new Map<string, SentRun>();
  for (const run of sent) {
    if (run.node !== node.id || !isUnreported(run, node)) continue;
    const name = `${run.realm}/${run.deployment}`;
    if ((newest.get(name)?.generation ?? 0) < run.generation) newest.set(name, run);
  }
  return [...newest.values()]
    .filter(({ mode }) => mode === 'apply')
    .map(({ resources }) => ResourceLimits.parse(JSON.parse(resources)))
    .reduce(
      (sum, each) => ({
        milliCpus: sum.milliCpus + each.milliCpus,
        memoryBytes: sum.memoryBytes + each.memoryBytes,
        storageBytes: sum.storageBytes + each.storageBytes,
      }),
      NOTHING,
    );
}

function isUnreported(run: SentRun, node: NodeView): boolean {
  return run.last_seq === 0 || run.submitted_at >= (node.lastReportAt ?? 0);
}

const COLUMNS = [
  'runs.node',
  'runs.realm',
  'runs.deployment',
  'runs.generation',
  'runs.mode',
  'runs.submitted_at',
  'runs.last_seq',
  'revisions.resources',
] as const;

function readSent(
  store: Store<CoordinatorDb>,
  ids: readonly string[],
  since: number,
): Promise<readonly SentRun[]> {
  return store.db
    .selectFrom('runs')
    .innerJoin('revisions', 'revisions.digest', 'runs.digest')
    .select(COLUMNS)
    .where('runs.node', 'in', ids)
    .where('runs.state', 'not in', HOLDING_NOTHING)
    .where(({ eb, or }) => or([eb('runs.submitted_at', '>=', since), eb('runs.last_seq', '=', 0)]))
    .limit(LIMITS.sentRunsMax)
    .execute();
}

/** The newest revision of the deployment on each node. */
function readHolding(
  store: Store<CoordinatorDb>,
  ids: readonly string[],
  { realm, deployment }: DeploymentName,
): Promise<readonly SentRun[]> {
  return store.db
    .selectFrom('runs')
    .innerJoin('revisions', 'revisions.digest', 'runs.digest')
    .select(COLUMNS)
    .where('runs.realm', '=', realm)
    .where('runs.deployment', '=', deployment)
    .where('runs.node', 'in', ids)
    .where('runs.generation', '=', ({ selectFrom }) =>
      selectFrom('runs as newer')
        .select(({ fn }) => fn.max('newer.generation').as('generation'))
        .whereRef('newer.node', '=', 'runs.node')
        .where('newer.realm', '=', realm)
        .where('newer.deployment', '=', deployment)
        .where('newer.mode', 'in', ['apply', 'destroy'])
        .where('newer.state', 'not in', HOLDING_NOTHING),
    )
    .where('runs.mode', 'in', ['apply', 'destroy'])
    .where('runs.state', 'not in', HOLDING_NOTHING)
    .execute();
}

async function readWaiting(
  store: Store<CoordinatorDb>,
  ids: readonly string[],
): Promise<ReadonlyMap<string, number>> {
  const rows = await store.db
    .selectFrom('inbox_messages')
    .select(({ fn }) => ['node', fn.countAll<number>().as('waiting')])
    .where('node', 'in', ids)
    .groupBy('node')
    .execute();
  return new Map(rows.map(({ node, waiting }) => [node, waiting]));
}
