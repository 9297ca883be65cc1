import {
  CancellationAccepted,
  LIMITS,
  Name,
  NodeFactsView,
  pageOf,
  ResourceView,
  Submission,
  SubmissionAccepted,
} from '@hypha/protocol';
import {
  type Caller,
  type HyphaServer,
  mayRead,
  pageQuery,
  queryInt,
  READERS,
  readableRealms,
  type ServerEvent,
} from '@hypha/service';
import { z } from 'zod';
import type { NodeAdmission } from '../admission.ts';
import type { NodeCancellation } from '../cancellation.ts';
import { type ResourceName, type ResourceReader, unknownResource } from '../resource-reader.ts';

const ResourceParams = z.strictObject({
  realm: Name,
  deployment: Name,
  kind: z.string().max(64),
  name: Name,
});

interface NodeRoutesDeps {
  readonly node: string;
  readonly admission: NodeAdmission;
  readonly cancellation: NodeCancellation;
  readonly resources: ResourceReader;
  readonly facts: () => Promise<NodeFactsView>;
}

/** What only a node serves, and submissions (design §9). */
export function addNodeRoutes(server: HyphaServer, deps: NodeRoutesDeps): void {
  const { node, admission, cancellation, resources, facts } = deps;
  server.route({
    method: 'POST',
    path: '/v1/deployments',
    // The envelope is what authorises (design §9).
    auth: 'public',
    summary: 'Accepts a signed script; durable when it is answered.',
    body: Submission,
    bodyRefusal: 'E_ENVELOPE',
    bodyBytesMax: LIMITS.submissionBytesMax,
    answer: SubmissionAccepted,
    status: 202,
    handle: async ({ body }) => {
      const { entry, existing } = await admission.submit(body, 'http');
      const { run, revision } = entry;
      return { revision, runs: [{ run, node }], ...(existing ? { existing } : {}) };
    },
  });
  server.route({
    method: 'POST',
    path: '/v1/cancellations',
    auth: 'public',
    summary: 'Accepts a signed cancel; durable when it is answered.',
    body: Submission,
    bodyRefusal: 'E_ENVELOPE',
    bodyBytesMax: LIMITS.submissionBytesMax,
    answer: CancellationAccepted,
    status: 202,
    handle: ({ body }) => cancellation.submit(body),
  });
  server.route({
    method: 'GET',
    path: '/v1/resources',
    auth: { roles: READERS },
    summary: 'What this node holds, as recorded and as it is.',
    query: z.strictObject({ ...pageQuery, realm: Name.optional(), deployment: Name.optional() }),
    answer: pageOf(ResourceView),
    handle: ({ query, caller }) => resources.list({ ...query, realms: readableRealms(caller) }),
  });
  server.route({
    method: 'GET',
    path: '/v1/resources/:realm/:deployment/:kind/:name',
    auth: { roles: READERS },
    summary: 'One resource.',
    params: ResourceParams,
    answer: ResourceView,
    handle: ({ params, caller }) => {
      checkMayRead(caller, params);
      return resources.get(params);
    },
  });
  server.stream({
    path: '/v1/resources/:realm/:deployment/:kind/:name/logs',
    auth: { roles: READERS },
    summary: 'What a resource wrote, one event a line.',
    params: ResourceParams,
    query: z.strictObject({
      follow: z.enum(['true', 'false']).default('false'),
      /** Last lines first shown; default: all that is kept. */
      tail: queryInt({ min: 0, max: 1_000_000 }).optional(),
    }),
    open: async ({ params, query, caller, signal }) => {
      checkMayRead(caller, params);
      const follow = query.follow === 'true';
      return linesOf(await resources.logs(params, { follow, tail: query.tail ?? null, signal }));
    },
  });
  server.route({
    method: 'GET',
    path: '/v1/facts',
    auth: { roles: READERS },
    summary: 'What this node is, which SALs work on it, and what protects it.',
    answer: NodeFactsView,
    handle: facts,
  });
}

/** What the caller may not see is, to it, not there. */
function checkMayRead(caller: Caller | undefined, name: ResourceName): void {
  if (!mayRead(caller, name.realm)) throw unknownResource(name);
}

async function* linesOf(
  lines: AsyncIterable<string>,
): AsyncGenerator<ServerEvent, void, undefined> {
  for await (const line of lines) yield { data: line };
}
