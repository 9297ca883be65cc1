import {
  CancellationAccepted,
  DeploymentView,
  HyphaError,
  LIMITS,
  Name,
  PlacementProposal,
  PlacementRequest,
  pageOf,
  Submission,
  SubmissionAccepted,
} from '@hypha/protocol';
import { type HyphaServer, mayRead, pageQuery, READERS, readableRealms } from '@hypha/service';
import { z } from 'zod';
import type { Coordinator } from '../coordinator.ts';
import { unknownDeployment } from '../deployment-reader.ts';
import { proposePlacement } from '../proposal.ts';

const DeploymentParams = z.strictObject({ realm: Name, name: Name });

export function addDeploymentRoutes(server: HyphaServer, coordinator: Coordinator): void {
  const { submissions, cancellations, deployments } = coordinator;
  server.route({
    method: 'POST',
    path: '/v1/placements',
    auth: { roles: ['operator', 'admin'] },
    summary: 'Proposes nodes for a revision, with a reason for every node.',
    body: PlacementRequest,
    answer: PlacementProposal,
    handle: ({ body, caller }) => {
      if (!mayRead(caller, body.realm)) {
        throw new HyphaError(
          'E_FORBIDDEN',
          `key ${caller?.name} has no say about realm ${body.realm}`,
          { where: { path: 'realm' } },
        );
      }
      return proposePlacement(coordinator, body);
    },
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
    method: 'POST',
    path: '/v1/cancellations',
    auth: 'public',
    summary:
      'Accepts a signed cancel: verified and durable before the answer, also for a target not known yet.',
    body: Submission,
    bodyRefusal: 'E_ENVELOPE',
    bodyBytesMax: LIMITS.submissionBytesMax,
    answer: CancellationAccepted,
    status: 202,
    handle: ({ body }) => cancellations.cancel(body),
  });
  server.route({
    method: 'GET',
    path: '/v1/deployments',
    auth: { roles: READERS },
    summary: 'Deployments, each as its newest generation has it.',
    query: z.strictObject(pageQuery),
    answer: pageOf(DeploymentView),
    handle: ({ query, caller }) => deployments.list(query, readableRealms(caller)),
  });
  server.route({
    method: 'GET',
    path: '/v1/deployments/:realm/:name',
    auth: { roles: READERS },
    summary: 'One deployment.',
    params: DeploymentParams,
    answer: DeploymentView,
    handle: ({ params: { realm, name }, caller }) => {
      if (!mayRead(caller, realm)) throw unknownDeployment(realm, name);
      return deployments.get(realm, name);
    },
  });
  server.route({
    method: 'GET',
    path: '/v1/deployments/:realm/:name/revisions',
    auth: { roles: READERS },
    summary: 'Every revision of a deployment, the highest generation first.',
    params: DeploymentParams,
    query: z.strictObject(pageQuery),
    answer: pageOf(DeploymentView),
    handle: ({ params: { realm, name }, query, caller }) => {
      if (!mayRead(caller, realm)) throw unknownDeployment(realm, name);
      return deployments.revisions(realm, name, query);
    },
  });
}
