import type { LedgerClient } from '@hypha/client';
import { type Envelope, LIMITS, type NodeView } from '@hypha/protocol';

/** What the coordinator reads at the ledger. Both read every page; both throw `E_UNAVAILABLE`. */
export interface LedgerSource {
  /** Authority updates after `seq`, oldest first; -1: from genesis. */
  listAuthority(afterSeq: number, signal: AbortSignal): Promise<readonly Envelope[]>;
  /** The newest signed head of the log, as the ledger answers it. */
  readCheckpoint(signal: AbortSignal): Promise<string>;
  listNodes(signal: AbortSignal): Promise<readonly NodeView[]>;
  /** Throws `E_NOT_FOUND`. */
  getNode(id: string, signal: AbortSignal): Promise<NodeView>;
}

/** Pages read in one go: a ledger that pages for ever must not hold us. */
const PAGES_MAX = 1000;

export function ledgerSource(client: LedgerClient): LedgerSource {
  return {
    listAuthority: async (afterSeq, signal) => {
      const updates: Envelope[] = [];
      for (let page = 0; page < PAGES_MAX; page++) {
        const seq = afterSeq + updates.length;
        const { items, head } = await client.authority(seq < 0 ? {} : { since: seq }, { signal });
        updates.push(...items);
        if (items.length === 0 || afterSeq + updates.length >= head.seq) break;
      }
      return updates;
    },
    readCheckpoint: async (signal) => (await client.checkpoint({ signal })).checkpoint,
    listNodes: async (signal) => {
      const nodes: NodeView[] = [];
      let cursor: string | undefined;
      for (let page = 0; page < PAGES_MAX; page++) {
        const query = { limit: LIMITS.listItemsMax, ...(cursor === undefined ? {} : { cursor }) };
        const { items, nextCursor } = await client.listNodes(query, { signal });
        nodes.push(...items);
        if (nextCursor === null) break;
        cursor = nextCursor;
      }
      return nodes;
    },
    getNode: (id, signal) => client.node(id, { signal }),
  };
}
