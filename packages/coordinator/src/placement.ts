import type { ErrorCode, NodeView, ResourceLimits, ScriptMode } from '@hypha/protocol';
import { COORDINATOR_LIMITS as LIMITS } from './limits.ts';

/** One node as placement sees it. */
export interface Candidate {
  readonly node: NodeView;
  /** Ceiling of the revision of this deployment the node already holds, or null. */
  readonly held: ResourceLimits | null;
  /** Ceilings of what was sent to the node after its last report, so not yet in `node.free`. */
  readonly sent: ResourceLimits;
  /** Messages that wait for the node. */
  readonly waiting: number;
}

/** What is to be placed. */
export interface PlacementAsk {
  readonly realm: string;
  readonly mode: ScriptMode;
  readonly count: number;
  /** All must match. */
  readonly labels: Readonly<Record<string, string>>;
  readonly resources: ResourceLimits;
  /** False: a node that is away may be chosen last, its message waits for it. */
  readonly mustBeReachable: boolean;
}

export interface Verdict {
  readonly id: string;
  readonly name: string;
  readonly reason: string;
  /** For the refused: what the node would answer, or would if it could. */
  readonly code?: ErrorCode;
}

export interface Placement {
  /** Best first; at most `count`. */
  readonly chosen: readonly Verdict[];
  readonly refused: readonly Verdict[];
}

const NONE: ResourceLimits = { milliCpus: 0, memoryBytes: 0, storageBytes: 0 };
const DIMENSIONS = ['milliCpus', 'memoryBytes', 'storageBytes'] as const;

/**
 * Chooses nodes and says why, for each one. Pure and deterministic. Nodes that already hold the
 * deployment come first (their volumes are there), then ready ones with most capacity left, then those
 * that are away. The node has the last word: its own admission checks capacity again.
 */
export function place(candidates: readonly Candidate[], ask: PlacementAsk): Placement {
  const judged = candidates.map((candidate) => ({ candidate, refusal: refusalOf(candidate, ask) }));
  const fitting = judged
    .filter(({ refusal }) => refusal === undefined)
    .map(({ candidate }) => ({ candidate, rank: rankOf(candidate, ask) }))
    .sort(
      (a, b) =>
        a.rank.group - b.rank.group ||
        b.rank.left - a.rank.left ||
        (a.candidate.node.id < b.candidate.node.id ? -1 : 1),
    );
  const chosen = fitting.slice(0, ask.count).map(({ candidate, rank }) => ({
    id: candidate.node.id,
    name: candidate.node.name,
    reason: reasonOf(candidate, rank.left),
  }));
  const spare = fitting.slice(ask.count).map(({ candidate, rank }) => ({
    id: candidate.node.id,
    name: candidate.node.name,
    reason: `fits (${reasonOf(candidate, rank.left)}), but ${ask.count} others rank higher`,
  }));
  const unfit = judged.flatMap(({ candidate: { node }, refusal }) =>
    refusal === undefined ? [] : [{ id: node.id, name: node.name, ...refusal }],
  );
  return { chosen, refused: [...spare, ...unfit].slice(0, LIMITS.refusedListedMax) };
}

type Refusal = { readonly reason: string; readonly code: ErrorCode };

function refusalOf(candidate: Candidate, ask: PlacementAsk): Refusal | undefined {
  const { node } = candidate;
  switch (node.state) {
    case 'revoked':
      return { code: 'E_KEY_REVOKED', reason: 'its key was revoked' };
    case 'pending':
      return { code: 'E_FORBIDDEN', reason: 'it waits for admission: hypha node admit' };
    case 'cordoned':
      // A cordon keeps new work away; what is there may still be worked on and taken away.
      if (ask.mode !== 'destroy' && ask.mode !== 'task') {
        return { code: 'E_FORBIDDEN', reason: 'it is cordoned: hypha node uncordon' };
      }
      break;
    case 'unreachable':
      if (ask.mustBeReachable) return { code: 'E_UNAVAILABLE', reason: 'it is unreachable' };
      break;
    case 'ready':
      break;
    default:
      return node.state satisfies never;
  }
  if (!node.realms.includes('*') && !node.realms.includes(ask.realm)) {
    return { code: 'E_AUDIENCE', reason: `it does not serve realm ${ask.realm}` };
  }
  for (const [label, value] of Object.entries(ask.labels)) {
    if (node.labels[label] !== value) {
      const has = node.labels[label] === undefined ? 'no such label' : `${node.labels[label]}`;
      return { code: 'E_AUDIENCE', reason: `label ${label} is not ${value} (${has})` };
    }
  }
  if (candidate.waiting >= LIMITS.pendingPerNodeMax) {
    return { code: 'E_RATE', reason: `${candidate.waiting} messages wait for it already` };
  }
  return ask.mode === 'apply' ? shortage(candidate, ask.resources) : undefined;
}

function shortage(candidate: Candidate, resources: ResourceLimits): Refusal | undefined {
  for (const dimension of DIMENSIONS) {
    const free = freeFor(candidate, dimension);
    if (resources[dimension] > free) {
      return {
        code: 'E_CAPACITY',
        reason: `limits.resources.${dimension} ${resources[dimension]} is over its free ${Math.max(0, free)}`,
      };
    }
  }
  return undefined;
}

/** What the node holds for this deployment is counted as free: the new revision takes its place. */
function freeFor(candidate: Candidate, dimension: (typeof DIMENSIONS)[number]): number {
  const { node, held, sent } = candidate;
  return node.free[dimension] - sent[dimension] + (held ?? NONE)[dimension];
}

/** `left`: the scarcest dimension's share of the node that stays free, 0 to 1. */
function rankOf(candidate: Candidate, ask: PlacementAsk): { group: number; left: number } {
  const { node, held } = candidate;
  const totals: ResourceLimits = {
    milliCpus: node.facts.cpus * 1000,
    memoryBytes: node.facts.memoryBytes,
    storageBytes: node.facts.storageBytes,
  };
  const shares = DIMENSIONS.filter((dimension) => totals[dimension] > 0).map(
    (dimension) => (freeFor(candidate, dimension) - ask.resources[dimension]) / totals[dimension],
  );
  const away = node.state === 'unreachable' ? 1 : 0;
  return { group: (held === null ? 2 : 0) + away, left: Math.min(1, ...shares) };
}

function reasonOf({ node, held }: Candidate, left: number): string {
  const parts = [
    ...(held === null ? [] : ['holds the deployment']),
    node.state,
    `${Math.max(0, Math.floor(left * 100))} % of its scarcest resource stays free`,
  ];
  return parts.join(', ');
}
