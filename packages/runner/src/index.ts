export { RunnerConfig } from './config.ts';
export { engineClock } from './engine-clock.ts';
export { QUEUE_LIMITS } from './queue-worker.ts';
export { type GuestSource, type RunnerDeps, serveRuns } from './runner.ts';
