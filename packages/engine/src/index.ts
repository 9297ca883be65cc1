export { ENGINE_ABI, ENGINE_LIMITS } from './engine-limits.ts';
export type { Clock, Fault, Guest, RunGrant, RunJournal } from './ports.ts';
export { runSaga, type SagaInput, type SagaOutcome } from './saga.ts';
export { programOf, seedOf } from './script-run.ts';
