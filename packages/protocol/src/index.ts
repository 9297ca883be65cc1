export * from './api.ts';
export * from './authority.ts';
export * from './authority-payload.ts';
export type { KeyRecord, LedgerKey } from './authority-state.ts';
export * from './cancel-payload.ts';
export * from './canonical-json.ts';
export * from './checkpoint.ts';
export * from './crypto-port.ts';
export * from './dsse.ts';
export * from './ed25519.ts';
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
export * from './kept-leftover.ts';
export * from './limits.ts';
export * from './merkle.ts';
export * from './node-payloads.ts';
export * from './node-protection.ts';
export * from './payload-builders.ts';
export * from './plan-document.ts';
export * from './receipt-payload.ts';
export * from './replay-memory.ts';
export * from './run-fold.ts';
export * from './run-state.ts';
export * from './scope.ts';
export * from './script-mode.ts';
export * from './script-payload.ts';
export * from './script-syntax.ts';
export * from './secret-box.ts';
export * from './sign-payload.ts';
export * from './strict-json.ts';
export { findUsableKey } from './usable-key.ts';
export * from './verify-admission.ts';
export * from './verify-bundle.ts';
export * from './verify-cancel.ts';
export * from './verify-enrolment.ts';
export * from './verify-envelope.ts';
export * from './verify-receipt.ts';
export * from './verify-script.ts';
export * from './wire.ts';
