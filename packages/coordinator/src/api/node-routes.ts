import {
  type InboxMessage,
  LIMITS,
  NodeId,
  NodeView,
  OutboxAnswer,
  OutboxBatch,
  pageOf,
} from '@hypha/protocol';
import { type HyphaServer, pageQuery, queryInt, READERS, type ServerEvent } from '@hypha/service';
import { z } from 'zod';
import type { Coordinator } from '../coordinator.ts';
import { decodeCursor, pageFrom } from '../page-cursor.ts';
import { checkSayAbout } from './caller-keys.ts';

const NodeParams = z.strictObject({ id: NodeId });
const NodeKey = z.tuple([NodeId]);

export function addNodeRoutes(server: HyphaServer, coordinator: Coordinator): void {
  const { fleet, follower, inbox, outbox } = coordinator;
  server.route({
    method: 'GET',
    path: '/v1/nodes',
    auth: { roles: [...READERS, 'node'] },
    summary: 'Nodes as the ledger knows them, with what is seen here; a node sees itself.',
    query: z.strictObject(pageQuery),
    answer: pageOf(NodeView),
    handle: async ({ query: { limit, cursor }, caller }) => {
      const [after] = decodeCursor(NodeKey, cursor) ?? [''];
      await follower.freshen();
      const nodes = fleet
        .list()
        .filter(({ id }) => caller?.role !== 'node' || caller.nodeId === id)
        .filter(({ id }) => id > after)
        .sort((a, b) => (a.id < b.id ? -1 : 1));
      return pageFrom(
        nodes.slice(0, limit + 1),
        limit,
        ({ id }) => [id],
        (node) => node,
      );
    },
  });
  for (const verb of ['cordon', 'uncordon'] as const) {
    server.route({
      method: 'POST',
      path: `/v1/nodes/:id/${verb}`,
      auth: { roles: ['admin'] },
      summary: verb === 'cordon' ? 'Keeps new work off a node.' : 'Lets new work onto a node.',
      params: NodeParams,
      answer: NodeView,
      handle: async ({ params: { id }, caller }) => {
        checkSayAbout(caller, id);
        if (fleet.find(id) === undefined) await follower.learnNode(id);
        return verb === 'cordon' ? await fleet.cordon(id, caller?.keyid) : await fleet.uncordon(id);
      },
    });
  }
  server.stream({
    path: '/v1/nodes/:id/inbox',
    auth: 'node',
    summary: 'For a node: what it is asked to do. Data is an InboxMessage.',
    params: NodeParams,
    query: z.strictObject({
      /** Seq of the newest authority update the node knows: those after it are sent. */
      authoritySeq: queryInt({ min: -1, max: Number.MAX_SAFE_INTEGER }).optional(),
    }),
    open: async ({ params, query, signal }) =>
      serverEvents(inbox.messages(params.id, query.authoritySeq ?? -1, signal)),
  });
  server.route({
    method: 'POST',
    path: '/v1/nodes/:id/outbox',
    auth: 'node',
    summary: 'For a node: answers, journal events and receipts.',
    params: NodeParams,
    body: OutboxBatch,
    bodyBytesMax: LIMITS.bodyBytesMax,
    answer: OutboxAnswer,
    handle: async ({ params, body }) => ({ results: await outbox.take(params.id, body) }),
  });
}

async function* serverEvents(
  messages: AsyncIterable<InboxMessage>,
): AsyncGenerator<ServerEvent, void, undefined> {
  for await (const message of messages) {
    yield { id: message.id, event: message.type, data: JSON.stringify(message) };
  }
}
