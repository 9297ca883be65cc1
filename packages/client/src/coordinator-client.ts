import {
  DeploymentView,
  NodeView,
  OutboxAnswer,
  type OutboxBatch,
  type Page,
  PlacementProposal,
  type PlacementRequest,
  pageOf,
} from '@hypha/protocol';
import type { z } from 'zod';
import type { StreamEvent } from './event-stream.ts';
import { apiPath } from './hypha-client.ts';
import type { PageQuery } from './page-query.ts';
import { type Cancellable, RunsClient } from './runs-client.ts';

const DeploymentPage = pageOf(DeploymentView);
const NodePage = pageOf(NodeView);

interface StreamOptions {
  readonly lastEventId?: string;
  readonly signal: AbortSignal;
}

/** The coordinator's API (design §9). */
export class CoordinatorClient extends RunsClient {
  propose(
    request: z.input<typeof PlacementRequest>,
    options: Cancellable = {},
  ): Promise<PlacementProposal> {
    return this.http.request({
      method: 'POST',
      path: '/v1/placements',
      body: request,
      answer: PlacementProposal,
      ...options,
    });
  }

  listDeployments(query: PageQuery = {}, options: Cancellable = {}): Promise<Page<DeploymentView>> {
    return this.http.request({
      method: 'GET',
      path: '/v1/deployments',
      query: { ...query },
      answer: DeploymentPage,
      ...options,
    });
  }

  deployment(realm: string, name: string, options: Cancellable = {}): Promise<DeploymentView> {
    return this.http.request({
      method: 'GET',
      path: apiPath`/v1/deployments/${realm}/${name}`,
      answer: DeploymentView,
      ...options,
    });
  }

  /** Every revision of a deployment, newest first. */
  listRevisions(
    realm: string,
    name: string,
    query: PageQuery = {},
    options: Cancellable = {},
  ): Promise<Page<DeploymentView>> {
    return this.http.request({
      method: 'GET',
      path: apiPath`/v1/deployments/${realm}/${name}/revisions`,
      query: { ...query },
      answer: DeploymentPage,
      ...options,
    });
  }

  listNodes(query: PageQuery = {}, options: Cancellable = {}): Promise<Page<NodeView>> {
    return this.http.request({
      method: 'GET',
      path: '/v1/nodes',
      query: { ...query },
      answer: NodePage,
      ...options,
    });
  }

  /** Keeps new work off a node; what runs there goes on. */
  cordon(node: string, options: Cancellable = {}): Promise<NodeView> {
    return this.http.request({
      method: 'POST',
      path: apiPath`/v1/nodes/${node}/cordon`,
      answer: NodeView,
      ...options,
    });
  }

  uncordon(node: string, options: Cancellable = {}): Promise<NodeView> {
    return this.http.request({
      method: 'POST',
      path: apiPath`/v1/nodes/${node}/uncordon`,
      answer: NodeView,
      ...options,
    });
  }

  /** One connection's events of everything the coordinator sees. */
  events(options: StreamOptions): AsyncGenerator<StreamEvent, void, undefined> {
    return this.http.stream({ path: '/v1/events', ...options });
  }

  /** For a node: one connection of its inbox. `data` is an `InboxMessage`. */
  inbox(node: string, options: StreamOptions): AsyncGenerator<StreamEvent, void, undefined> {
    return this.http.stream({ path: inboxPath(node), ...options });
  }

  /** For a node: what is `ok` is durable at the coordinator when it resolves. */
  sendOutbox(node: string, batch: OutboxBatch, options: Cancellable = {}): Promise<OutboxAnswer> {
    return this.http.request({
      method: 'POST',
      path: apiPath`/v1/nodes/${node}/outbox`,
      body: batch,
      answer: OutboxAnswer,
      ...options,
    });
  }
}

/** For `followStream`. */
export function inboxPath(node: string): string {
  return apiPath`/v1/nodes/${node}/inbox`;
}
