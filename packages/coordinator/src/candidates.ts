import { type NodeView, ResourceLimits } from '@hypha/protocol';
import type { Store } from '@hypha/store';
import { COORDINATOR_LIMITS as LIMITS } from './limits.ts';
import type { Candidate } from './placement.ts';
import type { CoordinatorDb } from './schema.ts';

/** Runs in these states hold nothing on their node any more, but for what is kept. */
const HOLDING_NOTHING = ['failed', 'cancelled', 'rejected'];

/** Nodes of one query. */
const NODES_AT_ONCE = 1000;

const NOTHING: ResourceLimits = { milliCpus: 0, memoryBytes: 0, storageBytes: 0 };

/**
 * Reads what placement needs to know of these nodes beside their records: what they hold of the
 * deployment, what was sent to them since they last reported, and what waits for them.
 */
export async function readCandidates(
  store: Store<CoordinatorDb>,
  nodes: readonly NodeView[],
  ask: CandidateAsk,
): Promise<readonly Candidate[]> {
  const candidates: Candidate[] = [];
  for (let at = 0; at < nodes.length; at += NODES_AT_ONCE) {
    candidates.push(...(await readSome(store, nodes.slice(at, at + NODES_AT_ONCE), ask)));
  }
  return candidates;
}

interface CandidateAsk {
  readonly nowMs: number;
  /** Node id → ids it had before: what those held, it holds. */
  readonly predecessors?: ReadonlyMap<string, readonly string[]>;
  readonly deployment?: DeploymentName;
}

async function readSome(
  store: Store<CoordinatorDb>,
  nodes: readonly NodeView[],
  { nowMs, deployment, predecessors }: CandidateAsk,
): Promise<readonly Candidate[]> {
  const ids = nodes.map(({ id }) => id);
  const withBefore = new Map(ids.map((id) => [id, [id, ...(predecessors?.get(id) ?? [])]]));
  const oldestReport = Math.min(...nodes.map(({ lastReportAt }) => lastReportAt ?? 0));
  const since = Math.max(oldestReport, nowMs - LIMITS.reportAgeMsMax);
  const heldIds = [...withBefore.values()].flat();
  const [recent, undelivered, holding, kept, waiting] = await Promise.all([
    readRecent(store, ids, since),
    readUndelivered(store, ids),
    deployment === undefined ? [] : readHolding(store, heldIds, { ...deployment, of: 'revisions' }),
    deployment === undefined ? [] : readHolding(store, heldIds, { ...deployment, of: 'failures' }),
    readWaiting(store, ids),
  ]);
  const others = [...recent, ...undelivered].filter((run) => !isOf(run, deployment));
  const sent = Map.groupBy(others, ({ node }) => node);
  const newestOf = (id: string, runs: readonly SentRun[]) => {
    const before = withBefore.get(id) ?? [];
    return runs
      .filter(({ node }) => before.includes(node))
      .toSorted((a, b) => b.generation - a.generation)[0];
  };
  return nodes.map((node) => ({
    node,
    held: heldBy(node, newestOf(node.id, holding), newestOf(node.id, kept)),
    sent: sentTo(node, sent.get(node.id) ?? []),
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

/**
 * A node holds the larger of a revision and of what a failure since then has left, signed to be kept, until the next
 * revision takes it over.
 */
function heldBy(
  node: NodeView,
  revision: SentRun | undefined,
  kept: SentRun | undefined,
): ResourceLimits | null {
  const held = heldByRun(node, revision);
  if (kept === undefined || kept.generation < (revision?.generation ?? 0)) return held;
  const left = heldByRun(node, kept);
  if (held === null || left === null) return held ?? left;
  return {
    milliCpus: Math.max(held.milliCpus, left.milliCpus),
    memoryBytes: Math.max(held.memoryBytes, left.memoryBytes),
    storageBytes: Math.max(held.storageBytes, left.storageBytes),
  };
}

function heldByRun(node: NodeView, run: SentRun | undefined): ResourceLimits | null {
  if (run === undefined || run.mode === 'destroy') return null;
  // Not in the node's last report yet: its `free` was measured without it.
  if (isUnreported(run, node)) return NOTHING;
  return ResourceLimits.parse(JSON.parse(run.resources));
}

/** Only the newest revision of each deployment counts: it takes the place of those before it. */
function sentTo(node: NodeView, sent: readonly SentRun[]): ResourceLimits {
  const newest = new Map<string, SentRun>();
  for (const run of sent) {
    // Plans and tasks reserve nothing, and take the place of nothing.
    const isRevision = run.mode === 'apply' || run.mode === 'destroy';
    if (!isRevision || !isUnreported(run, node)) continue;
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

function readRecent(
  store: Store<CoordinatorDb>,
  ids: readonly string[],
  since: number,
): Promise<readonly SentRun[]> {
  return store.db
    .selectFrom('runs')
    .innerJoin('revisions', 'revisions.digest', 'runs.digest')
    .select(COLUMNS)
    .where('runs.node', 'in', ids)
    .where('runs.submitted_at', '>=', since)
    .where('runs.state', 'not in', HOLDING_NOTHING)
    .limit(LIMITS.sentRunsMax)
    .execute();
}

/** However long ago it was: no report of the node can have counted it. */
function readUndelivered(
  store: Store<CoordinatorDb>,
  ids: readonly string[],
): Promise<readonly SentRun[]> {
  return store.db
    .selectFrom('inbox_messages')
    .innerJoin('runs', 'runs.run', 'inbox_messages.run')
    .innerJoin('revisions', 'revisions.digest', 'runs.digest')
    .select(COLUMNS)
    .where('inbox_messages.node', 'in', ids)
    .limit(LIMITS.sentRunsMax)
    .execute();
}

/** The newest revision of the deployment on each node, or the newest failure that was kept. */
function readHolding(
  store: Store<CoordinatorDb>,
  ids: readonly string[],
  { realm, deployment, of }: DeploymentName & { readonly of: 'revisions' | 'failures' },
): Promise<readonly SentRun[]> {
  return store.db
    .selectFrom('nodes')
    .innerJoin('runs', (join) =>
      join.on('runs.run', '=', ({ selectFrom }) =>
        selectFrom('runs as newest')
          .select('newest.run')
          .where('newest.realm', '=', realm)
          .where('newest.deployment', '=', deployment)
          .whereRef('newest.node', '=', 'nodes.id')
          .where('newest.mode', 'in', ['apply', 'destroy'])
          .where((run) =>
            of === 'failures'
              ? run('newest.keeps', '=', 1)
              : run('newest.state', 'not in', HOLDING_NOTHING),
          )
          .orderBy('newest.generation', 'desc')
          .limit(1),
      ),
    )
    .innerJoin('revisions', 'revisions.digest', 'runs.digest')
    .select(COLUMNS)
    .where('nodes.id', 'in', ids)
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
