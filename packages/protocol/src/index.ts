export * from './api.ts';
export * from './authority-payload.ts';
export * from './canonical-json.ts';
export * from './crypto-port.ts';
export * from './dsse.ts';
export * from './encoding.ts';
export * from './error-codes.ts';
export * from './guest-turn.ts';
export {
  fromProblem,
  HyphaError,
  isHyphaError,
  Problem,
  ProblemPlace,
  toProblem,
} from './hypha-error.ts';
export * from './ids.ts';
export * from './join-token.ts';
export * from './journal-event.ts';
export * from './json-value.ts';
export * from './limits.ts';
export * from './node-payloads.ts';
export * from './receipt-payload.ts';
export * from './run-fold.ts';
export * from './run-state.ts';
export * from './script-payload.ts';
export * from './strict-json.ts';
