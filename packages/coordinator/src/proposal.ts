import { HyphaError, type PlacementProposal, type PlacementRequest } from '@hypha/protocol';
import type { Store } from '@hypha/store';
import { readCandidates } from './candidates.ts';
import type { Clock } from './clock.ts';
import type { Fleet } from './fleet.ts';
import type { LedgerFollower } from './ledger-follower.ts';
import { place, type Verdict } from './placement.ts';
import type { CoordinatorDb } from './schema.ts';

/**
 * Nodes a signer may put into `aud.nodes`, best first. Nothing is reserved: the node itself decides at
 * admission. Throws `E_NO_PLACEMENT` when too few fit, `E_NOT_FOUND` for a node nobody knows.
 */
export async function proposePlacement(
  deps: {
    readonly store: Store<CoordinatorDb>;
    readonly fleet: Fleet;
    readonly follower: LedgerFollower;
    readonly clock: Clock;
  },
  request: PlacementRequest,
): Promise<PlacementProposal> {
  const { store, fleet, follower, clock } = deps;
  await follower.freshen();
  const all = fleet.list();
  request.nodes.forEach((wanted, index) => {
    if (all.some(({ id, name }) => id === wanted || name === wanted)) return;
    throw new HyphaError('E_NOT_FOUND', `node ${wanted} is not known`, {
      where: { path: `nodes.${index}` },
      hint: 'list what there is: hypha node list',
    });
  });
  const asked = new Set(request.nodes);
  const views = all.filter(({ id, name }) => asked.size === 0 || asked.has(id) || asked.has(name));
  const candidates = await readCandidates(store, views, { nowMs: clock.nowMs() });
  const { chosen, refused } = place(candidates, {
    realm: request.realm,
    mode: 'apply',
    count: request.count,
    labels: request.labels,
    resources: request.resources,
    mustBeReachable: true,
  });
  if (chosen.length === request.count) {
    return { nodes: chosen.map(withoutCode), refused: refused.map(withoutCode) };
  }
  throw new HyphaError(
    'E_NO_PLACEMENT',
    `asked for ${request.count} nodes of ${views.length}, ${chosen.length} fit`,
    {
      where: { path: 'count' },
      details: { asked: request.count, fit: chosen.length, nodes: refused },
    },
  );
}

function withoutCode({ id, name, reason }: Verdict) {
  return { id, name, reason };
}
