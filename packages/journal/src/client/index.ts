/** The journal as a runner reaches it: over the supervisor's unix socket. */
export {
  connectJournal,
  type JournalConnection,
  type JournalConnectionOptions,
} from './journal-connection.ts';
export { LineChannel } from './line-channel.ts';
export {
  AppendAnswer,
  CLAIM_REFUSALS,
  ClaimAnswer,
  HELD_RUNS_MAX,
  KeptAnswer,
  LINE_BYTES_MAX,
  NumberedRequest,
  RunnerRequest,
  SecretsAnswer,
  SupervisorAnswer,
  SupervisorNotice,
} from './socket-protocol.ts';
