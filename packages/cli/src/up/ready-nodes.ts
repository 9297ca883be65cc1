import type { CoordinatorClient } from '@hypha/client';
import { HyphaError, type NodeView } from '@hypha/protocol';

const READY_MS_MAX = 60_000;
const NODE_POLL_MS = 100;

/** Ready: enrolled, reporting, and connected to the coordinator's inbox. In the order of `names`. */
export async function waitForNodes(
  coordinator: CoordinatorClient,
  names: readonly string[],
  signal: AbortSignal,
): Promise<NodeView[]> {
  const deadline = performance.now() + READY_MS_MAX;
  for (;;) {
    const { items } = await coordinator.listNodes({ limit: 500 }, { signal });
    const ready = names.flatMap((name) =>
      items.filter((node) => node.name === name && ['ready', 'cordoned'].includes(node.state)),
    );
    if (ready.length === names.length) return ready;
    if (performance.now() > deadline) {
      throw new HyphaError('E_UNAVAILABLE', `nodes not connected after ${READY_MS_MAX / 1000} s`, {
        hint: 'see the log folder of the state',
        details: items.map((node) => `${node.name}: ${node.state}`),
      });
    }
    await new Promise((done) => setTimeout(done, NODE_POLL_MS));
  }
}
