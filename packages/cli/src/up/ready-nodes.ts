import { setTimeout as sleep } from 'node:timers/promises';
import { type CoordinatorClient, HyphaClient } from '@hypha/client';
import { HyphaError, isHyphaError, type NodeView } from '@hypha/protocol';
import { z } from 'zod';

const NODE_POLL_MS = 100;
/** After a while: an admin who has to admit a node may take a day. */
const LATE_POLL_MS = 1000;
const EARLY_MS = 5000;
/** The coordinator is away, does not know the node yet, or has heard too much of it. */
const NOT_YET = ['E_UNAVAILABLE', 'E_UNAUTHENTICATED', 'E_RATE'] as const;
const ANSWER_MS_MAX = 3000;

/** A node this process started. */
export interface StartedNode {
  /** By its own key: others may have its name. */
  readonly id: string;
  readonly name: string;
  readonly url: string;
}

export interface WaitOptions {
  readonly signal: AbortSignal;
  /** Absent: until the signal aborts. */
  readonly waitMsMax?: number;
  /** Told why a node is not ready yet, whenever the reason is another one. */
  readonly onWaiting?: (node: StartedNode, reason: string) => void;
}

/**
 * Ready: enrolled, reporting, and connected to the coordinator's inbox. In the order of `nodes`.
 * Throws `E_UNAVAILABLE` with the reasons when that takes too long.
 */
export async function waitForNodes(
  coordinator: Pick<CoordinatorClient, 'listNodes'>,
  nodes: readonly StartedNode[],
  { signal, waitMsMax = Number.POSITIVE_INFINITY, onWaiting }: WaitOptions,
): Promise<NodeView[]> {
  const startedAt = performance.now();
  const deadline = startedAt + waitMsMax;
  const reasons = new Map<string, string>();
  for (;;) {
    const views = await listNodes(coordinator, signal);
    const ready = nodes.flatMap(({ id }) =>
      views.filter((view) => view.id === id && ['ready', 'cordoned'].includes(view.state)),
    );
    if (ready.length === nodes.length) return ready;
    for (const node of nodes.filter(({ id }) => !ready.some((view) => view.id === id))) {
      const reason = await findHindrance(node, signal);
      if (reasons.get(node.id) !== reason) onWaiting?.(node, reason);
      reasons.set(node.id, reason);
    }
    if (performance.now() > deadline) {
      throw new HyphaError('E_UNAVAILABLE', `nodes not connected after ${waitMsMax / 1000} s`, {
        hint: 'see the log folder of the state',
        details: nodes.map(({ id, name }) => `${name}: ${reasons.get(id) ?? 'ready'}`),
      });
    }
    const isEarly = performance.now() - startedAt < EARLY_MS;
    await sleep(isEarly ? NODE_POLL_MS : LATE_POLL_MS, undefined, { signal });
  }
}

/** Nothing while the coordinator has nothing to say to us. */
async function listNodes(
  coordinator: Pick<CoordinatorClient, 'listNodes'>,
  signal: AbortSignal,
): Promise<readonly NodeView[]> {
  try {
    return (await coordinator.listNodes({ limit: 500 }, { signal })).items;
  } catch (error) {
    if (!NOT_YET.some((code) => isHyphaError(error, code))) throw error;
    signal.throwIfAborted();
    return [];
  }
}

async function findHindrance({ url }: StartedNode, signal: AbortSignal): Promise<string> {
  const client = new HyphaClient({ baseUrl: url, timeoutMs: ANSWER_MS_MAX });
  try {
    await client.request({ method: 'GET', path: '/readyz', answer: z.unknown(), signal });
    return 'the coordinator does not see it yet';
  } catch (error) {
    signal.throwIfAborted();
    return error instanceof HyphaError ? error.message : 'internal error';
  } finally {
    await client.close();
  }
}
