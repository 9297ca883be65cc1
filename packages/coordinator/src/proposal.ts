import { HyphaError, type PlacementProposal, type PlacementRequest } from '@hypha/protocol';
import type { Store } from '@hypha/store';
import { readCandidates } from './candidates.ts';
import type { Clock } from './clock.ts';
import type { Fleet } from './fleet.ts';
import type { LedgerFollower } from './ledger-follower.ts';
import { type Placement, place, type Verdict } from './placement.ts';
import type { CoordinatorDb } from './schema.ts';
import type { SettlingNodes } from './settling-nodes.ts';

/**
 * Nodes a signer may put into `aud.nodes`, best first. Nothing is reserved: the node itself decides at
 * admission. Throws `E_NO_PLACEMENT` when too few fit, `E_NOT_FOUND` for a node nobody knows.
 */
export async function proposePlacement(
  deps: ProposalDeps,
  request: PlacementRequest,
): Promise<PlacementProposal> {
  const { fleet, follower, settling } = deps;
  await follower.freshen();
  const all = fleet.list();
  request.nodes.forEach((wanted, index) => {
    if (all.some(({ id, name }) => id === wanted || name === wanted)) return;
    throw new HyphaError('E_NOT_FOUND', `node ${wanted} is not known`, {
      where: { path: `nodes.${index}` },
      hint: 'list what there is: hypha node list',
    });
  });
  const { chosen, refused } = await settling.place(request.count, () => judge(deps, request));
  if (chosen.length === request.count) {
    return { nodes: chosen.map(withoutCode), refused: refused.map(withoutCode) };
  }
  throw new HyphaError(
    'E_NO_PLACEMENT',
    `asked for ${request.count} nodes of ${chosen.length + refused.length}, ${chosen.length} fit`,
    {
      where: { path: 'count' },
      details: { asked: request.count, fit: chosen.length, nodes: refused },
    },
  );
}

async function judge(
  { store, fleet, clock }: ProposalDeps,
  request: PlacementRequest,
): Promise<Placement> {
  const asked = new Set(request.nodes);
  const views = fleet
    .list()
    .filter(({ id, name }) => asked.size === 0 || asked.has(id) || asked.has(name));
  const candidates = await readCandidates(store, views, { nowMs: clock.nowMs() });
  return place(candidates, {
    realm: request.realm,
    mode: 'apply',
    count: request.count,
    labels: request.labels,
    resources: request.resources,
    mustBeReachable: true,
  });
}

interface ProposalDeps {
  readonly store: Store<CoordinatorDb>;
  readonly fleet: Fleet;
  readonly follower: LedgerFollower;
  readonly settling: SettlingNodes;
  readonly clock: Clock;
}

function withoutCode({ id, name, reason }: Verdict) {
  return { id, name, reason };
}
