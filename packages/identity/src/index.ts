/**
 * Who a node is: its keys, its place in the fleet, the authority it obeys and its signs of life. The
 * ledger is reached through `LedgerPort`, which `LedgerClient` of `@hypha/client` fits.
 */
export { AuthorityFollower, type AuthorityFollowerDeps } from './authority-follower.ts';
export { type Boot, readBoot } from './boot.ts';
export type { Clock } from './clock.ts';
export { type JoinDeps, type Joined, type JoinFailure, joinFleet } from './enrolment.ts';
export { readCgroupLayout, readFacts } from './facts.ts';
export type { LedgerPort, LogProofs } from './ledger-port.ts';
export { IDENTITY_LIMITS } from './limits.ts';
export { LogFollower, type LogFollowerDeps, type LogPort } from './log-follower.ts';
export { findMembership, Membership } from './membership.ts';
export { type NodeKeys, openNodeKeys } from './node-keys.ts';
export { findNextKey, type RekeyDeps, rekey } from './rekey.ts';
export { type BufferedReport, ReportBuffer, type RingBounds } from './report-buffer.ts';
export { type NodeSample, Reporter, type ReporterDeps } from './reporter.ts';
export { SealKeyPublisher, type SealKeyPublisherDeps } from './seal-key-publisher.ts';
export { SealKeys } from './seal-keys.ts';
export { SecretVersions } from './secret-versions.ts';
