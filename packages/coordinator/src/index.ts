/**
 * The coordinator: places signed scripts on nodes and carries them there (design §7 to §10). As a process:
 * `main.ts`.
 */
export { CoordinatorConfig } from './config.ts';
export { type RunningCoordinator, startCoordinator } from './coordinator.ts';
