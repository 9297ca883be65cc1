export * from './interruption.ts';
export * from './once-contract-suite.ts';
export * from './planned-steps.ts';
export * from './read-contract-suite.ts';
export * from './resource-contract-suite.ts';
export * from './step-contract-suite.ts';
export * from './world.ts';
