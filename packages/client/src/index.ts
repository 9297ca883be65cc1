/**
 * Typed access to Hypha's services over HTTP.
 *
 * ```ts
 * new HyphaClient({ baseUrl, ca?, signer?, timeoutMs?, clock? })
 *   .request({ method, path, query?, body?, answer: zodSchema, signal?, timeoutMs? }): Promise<answer>
 *   .stream({ path, query?, lastEventId?, signal }): AsyncGenerator<{ id, event, data }>
 *   .close()
 * followStream(client.http, { path, query?, lastEventId?, signal, persist?, onLost? })  // reconnects
 * apiPath`/v1/runs/${run}`                                                            // encodes
 *
 * new LedgerClient(options | HyphaClient)       // .http is the HyphaClient
 *   genesis() authority({since}) appendAuthority(envelope) challenge() enrol(envelope)
 *   listNodes({labels, state, limit, cursor}) node(id) report(id, reports)
 *   appendEntry(envelope) listEntries({kind, run, node, limit, cursor})
 * new CoordinatorClient(…)   propose submit cancel listDeployments deployment listRevisions listRuns run
 *   runEvents journal output plan receipt listNodes cordon uncordon events inbox sendOutbox
 * new NodeClient(…)          submit cancel listRuns run runEvents journal output plan receipt
 *   listResources resource resourceLogs facts
 * ```
 * Every method takes `{ signal }` last. Bodies: `POST /v1/authority`, `/v1/nodes` and `/v1/log/entries` take
 * `{envelope}`; reports take `{reports: [envelope…]}`. RFC 9421 signing and reading: `request-signature.ts`.
 */
export { findRivals, isAuthorityFork } from './authority-rival.ts';
export {
  CheckpointFollower,
  type CheckpointFollowerDeps,
  type ProofSource,
} from './checkpoint-follower.ts';
export { pinFile } from './checkpoint-pin.ts';
export { type ClientClock, systemClock } from './clock.ts';
export { ClockFloor, type FloorClock } from './clock-floor.ts';
export { CoordinatorClient, inboxPath } from './coordinator-client.ts';
export { EventStreamParser, type StreamEvent } from './event-stream.ts';
export { type Evidence, EvidenceFolder } from './evidence-folder.ts';
export { type FollowOptions, followStream } from './follow-stream.ts';
export {
  type ApiRequest,
  apiPath,
  HyphaClient,
  type HyphaClientOptions,
  type Query,
  type StreamRequest,
} from './hypha-client.ts';
export { isLedgerAway } from './ledger-away.ts';
export { Challenge, LedgerClient, type NodeQuery, ReportsAccepted } from './ledger-client.ts';
export { NodeClient, type ResourceName } from './node-client.ts';
export type { PageQuery } from './page-query.ts';
export {
  COVERED_COMPONENTS,
  canonicalAuthority,
  contentDigest,
  type RequestSignature,
  readRequestSignature,
  type SignableRequest,
  signatureBase,
  signRequest,
} from './request-signature.ts';
export {
  type Cancellable,
  RunOutput,
  type RunQuery,
  RunsClient,
  runEventsPath,
} from './runs-client.ts';
