export * from './interruption.ts';
export * from './resource-contract-suite.ts';
export * from './step-contract-suite.ts';
export * from './world.ts';
