import type { NodeFacts } from '@hypha/protocol';
import type { Session } from './session.ts';
import { nodeAddress, type ViaFlags } from './via.ts';

/** Kinds of resources that a node only pretends to make. */
export function simulatedKinds({ sals }: Pick<NodeFacts, 'sals'>): string[] {
  return Object.keys(sals)
    .filter((kind) => sals[kind]?.state === 'simulated')
    .sort();
}

/** ` (container, volume simulated)`, or nothing. */
export function simulatedNote(kinds: readonly string[]): string {
  return kinds.length === 0 ? '' : ` (${kinds.join(', ')} simulated)`;
}

/**
 * Kinds simulated on these nodes, by node id, as far as it can be learnt: the services may be away, and
 * what is asked for does not depend on it.
 */
export async function findSimulated(
  session: Session,
  nodes: readonly string[],
  flags: ViaFlags,
): Promise<ReadonlyMap<string, readonly string[]>> {
  try {
    if (flags.via === 'node' || flags.nodeUrl !== undefined) {
      const url = flags.nodeUrl ?? nodeAddress(session.context, undefined).url;
      const kinds = simulatedKinds(await session.nodeAt(url).facts());
      return new Map(nodes.map((id) => [id, kinds]));
    }
    const signal = AbortSignal.timeout(ASK_MS_MAX);
    const ledger = session.ledger();
    const asked = nodes.slice(0, ASKED_MAX).map((id) => ledger.node(id, { signal }));
    const found = await Promise.all(asked);
    return new Map(found.map(({ id, facts }) => [id, simulatedKinds(facts)]));
  } catch {
    return new Map();
  }
}

/** For a remark, a few requests are enough. */
const ASKED_MAX = 16;
const ASK_MS_MAX = 2000;
