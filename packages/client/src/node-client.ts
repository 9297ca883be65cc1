import { NodeFactsView, type Page, pageOf, ResourceView, SecretView } from '@hypha/protocol';
import type { StreamEvent } from './event-stream.ts';
import { apiPath } from './hypha-client.ts';
import type { PageQuery } from './page-query.ts';
import { type Cancellable, RunsClient } from './runs-client.ts';

/** A resource by its name within a node (design §8: names belong to a deployment). */
export interface ResourceName {
  readonly realm: string;
  readonly deployment: string;
  readonly kind: string;
  readonly name: string;
}

const ResourcePage = pageOf(ResourceView);
const SecretPage = pageOf(SecretView);

/** The supervisor's own API (design §9): works with coordinator and ledger gone. */
export class NodeClient extends RunsClient {
  listResources(
    query: PageQuery & { readonly realm?: string; readonly deployment?: string } = {},
    options: Cancellable = {},
  ): Promise<Page<ResourceView>> {
    return this.http.request({
      method: 'GET',
      path: '/v1/resources',
      query: { ...query },
      answer: ResourcePage,
      ...options,
    });
  }

  resource(resource: ResourceName, options: Cancellable = {}): Promise<ResourceView> {
    return this.http.request({
      method: 'GET',
      path: resourcePath(resource),
      answer: ResourceView,
      ...options,
    });
  }

  /** What a resource wrote, as SSE: one event a line. Ends at the last line unless `follow`. */
  resourceLogs(
    resource: ResourceName,
    options: {
      readonly follow?: boolean;
      readonly tail?: number;
      readonly lastEventId?: string;
      readonly signal: AbortSignal;
    },
  ): AsyncGenerator<StreamEvent, void, undefined> {
    const { follow, tail, ...rest } = options;
    return this.http.stream({
      path: `${resourcePath(resource)}/logs`,
      query: { follow, tail },
      ...rest,
    });
  }

  /** Names and versions of the secrets the node holds; values it gives to nobody. */
  listSecrets(
    query: PageQuery & { readonly realm?: string; readonly deployment?: string } = {},
    options: Cancellable = {},
  ): Promise<Page<SecretView>> {
    return this.http.request({
      method: 'GET',
      path: '/v1/secrets',
      query: { ...query },
      answer: SecretPage,
      ...options,
    });
  }

  facts(options: Cancellable = {}): Promise<NodeFactsView> {
    return this.http.request({
      method: 'GET',
      path: '/v1/facts',
      answer: NodeFactsView,
      ...options,
    });
  }
}

function resourcePath({ realm, deployment, kind, name }: ResourceName): string {
  return apiPath`/v1/resources/${realm}/${deployment}/${kind}/${name}`;
}
