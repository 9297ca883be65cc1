/** Which nodes a revision is for, and what they hold of its deployment. Asks the services only to read. */
import { isHyphaError, type NodeView, type ResourceLimits } from '@hypha/protocol';
import { listNodes } from './commands/node.ts';
import { parseInteger, parsePairs } from './option-parsers.ts';
import { type Session, selectNodes } from './session.ts';
import { nodeAddress, nodeAsked, type ViaFlags } from './via.ts';

export interface TargetFlags extends ViaFlags {
  readonly node?: string[];
  readonly label?: string[];
  readonly count?: string;
}

export interface Target {
  readonly id: string;
  readonly name: string;
}

/** What is known of a deployment before this revision. */
export interface Before {
  readonly generation: number;
  readonly nodes: readonly string[];
}

export async function findBefore(
  session: Session,
  realm: string,
  deployment: string,
  flags: TargetFlags,
): Promise<Before> {
  if (flags.via === 'node') {
    const { items } = await session
      .nodeAt(flags.nodeUrl ?? nodeAddress(session.context, flags.node?.[0]).url)
      .listRuns({ deployment, limit: 500 });
    const runs = items.filter((run) => run.realm === realm);
    return {
      generation: Math.max(0, ...runs.map((run) => run.generation)),
      nodes: [...new Set(runs.map((run) => run.node))],
    };
  }
  try {
    const { generation, runs } = await session.coordinator().deployment(realm, deployment);
    return { generation, nodes: runs.map((run) => run.node) };
  } catch (error) {
    if (isHyphaError(error, 'E_NOT_FOUND')) return { generation: 0, nodes: [] };
    throw error;
  }
}

/**
 * Named nodes; otherwise those that hold the deployment, since its data is there; otherwise what the
 * coordinator proposes. Only the signed list counts, so a wrong proposal can do no harm but a poor choice.
 */
export async function chooseTargets(
  session: Session,
  wanted: {
    realm: string;
    resources: ResourceLimits;
    before: Before;
    flags: TargetFlags;
  },
): Promise<Target[]> {
  const { realm, resources, before, flags } = wanted;
  const named = flags.node ?? [];
  if (named.length > 0 || flags.via === 'node') return resolveTargets(session, named, flags);
  const free = flags.count === undefined && (flags.label ?? []).length === 0;
  if (free && before.nodes.length > 0) return resolveTargets(session, before.nodes, flags);
  const { nodes } = await session.coordinator().propose({
    realm,
    count: parseInteger(flags.count ?? '1', '--count', { min: 1, max: 1000 }),
    labels: parsePairs(flags.label ?? [], '--label'),
    resources,
    nodes: [],
  });
  return nodes.map(({ id, name }) => ({ id, name }));
}

export async function resolveTargets(
  session: Session,
  wanted: readonly string[],
  flags: TargetFlags,
): Promise<Target[]> {
  if (flags.via === 'node') {
    if (wanted.length === 0) return [nodeAsked(session.context, flags)];
    return wanted.map((name) => nodeAddress(session.context, name));
  }
  const nodes: NodeView[] = await listNodes(session);
  return selectNodes(nodes, wanted)
    .map((node) => successorOf(nodes, node))
    .map(({ id, name }) => ({ id, name }));
}

/** A node that was given a new key holds what it held. Bounded, should a coordinator let them go round. */
function successorOf(nodes: readonly NodeView[], node: NodeView, stepsMax = 64): NodeView {
  const next = nodes.find(({ id }) => id === node.replacedBy);
  return next === undefined || stepsMax === 0 ? node : successorOf(nodes, next, stepsMax - 1);
}
