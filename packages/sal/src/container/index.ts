export * from './container-change.ts';
export * from './container-step-limits.ts';
export * from './mounted-volumes.ts';
