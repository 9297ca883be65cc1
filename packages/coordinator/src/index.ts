/**
 * The coordinator: places signed scripts on nodes and carries them there (design §7 to §10). A process:
 * `main.ts`. Exported are what composes it and the pure decisions.
 */
export { CoordinatorConfig } from './config.ts';
export { type RunningCoordinator, startCoordinator } from './coordinator.ts';
export {
  type Candidate,
  type Placement,
  type PlacementAsk,
  place,
  type Verdict,
} from './placement.ts';
