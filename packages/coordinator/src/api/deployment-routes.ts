import {
  DeploymentView,
  LIMITS,
  Name,
  PlacementProposal,
  PlacementRequest,
  pageOf,
  Submission,
  SubmissionAccepted,
} from '@hypha/protocol';
import { type HyphaServer, pageQuery } from '@hypha/service';
import { z } from 'zod';
import type { Coordinator } from '../coordinator.ts';
import { proposePlacement } from '../proposal.ts';

const DeploymentParams = z.strictObject({ realm: Name, name: Name });

export function addDeploymentRoutes(server: HyphaServer, coordinator: Coordinator): void {
  const { submissions, deployments } = coordinator;
  server.route({
    method: 'POST',
    path: '/v1/placements',
    auth: 'read',
    summary: 'Proposes nodes for a revision, with a reason for every node.',
    body: PlacementRequest,
    answer: PlacementProposal,
    handle: ({ body }) => proposePlacement(coordinator, body),
  });
  server.route({
    method: 'POST',
    path: '/v1/deployments',
    auth: 'public',
    summary: 'Accepts a signed script: verified, placed and durable before the answer.',
    body: Submission,
    bodyRefusal: 'E_ENVELOPE',
    bodyBytesMax: LIMITS.submissionBytesMax,
    answer: SubmissionAccepted,
    status: 202,
    handle: ({ body }) => submissions.submit(body),
  });
  server.route({
    method: 'GET',
    path: '/v1/deployments',
    auth: 'read',
    summary: 'Deployments, each as its newest generation has it.',
    query: z.strictObject(pageQuery),
    answer: pageOf(DeploymentView),
    handle: ({ query }) => deployments.list(query),
  });
  server.route({
    method: 'GET',
    path: '/v1/deployments/:realm/:name',
    auth: 'read',
    summary: 'One deployment.',
    params: DeploymentParams,
    answer: DeploymentView,
    handle: ({ params }) => deployments.get(params.realm, params.name),
  });
  server.route({
    method: 'GET',
    path: '/v1/deployments/:realm/:name/revisions',
    auth: 'read',
    summary: 'Every revision of a deployment, the highest generation first.',
    params: DeploymentParams,
    query: z.strictObject(pageQuery),
    answer: pageOf(DeploymentView),
    handle: ({ params, query }) => deployments.revisions(params.realm, params.name, query),
  });
}
