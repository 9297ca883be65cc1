import { addRunRoutes, type HyphaServer } from '@hypha/service';
import type { Coordinator } from '../coordinator.ts';
import { addChangeRoutes } from './change-routes.ts';
import { addDeploymentRoutes } from './deployment-routes.ts';
import { addNodeRoutes } from './node-routes.ts';

/** The coordinator's part of design §9. */
export function addRoutes(server: HyphaServer, coordinator: Coordinator): void {
  addDeploymentRoutes(server, coordinator);
  addRunRoutes(server, coordinator.runs);
  addNodeRoutes(server, coordinator);
  addChangeRoutes(server, coordinator);
}
