export * from './simulated-sals.ts';
