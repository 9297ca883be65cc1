/** Bounds of one coordinator. Exceeding one is an error the caller sees, never a silent drop. */
export const COORDINATOR_LIMITS = {
  /** New keys of one machine that are followed back. */
  replacementsMax: 64,
  /** Messages that wait for one node. */
  pendingPerNodeMax: 1000,
  /** Messages that wait for all nodes together. */
  pendingMax: 100_000,
  /** Cancels by one key that are kept for one script envelope. */
  cancelsPerSignerMax: 16,
  /** The same by all keys together; once the envelope is known, by those that may cancel it. */
  cancelsPerTargetMax: 256,
  /** How long a cancel is kept at least: until its target could no longer be admitted, milliseconds (design §8). */
  cancelsKeptMsMin: 2 * 86_400_000,
  /** Messages sent to one node whose answer is still to come. */
  inFlightPerNodeMax: 64,
  /** Messages read from the store for one node at once. */
  inboxClaimMax: 8,
  /** Delay before a message that was sent is sent again, milliseconds; doubles per attempt. */
  resendDelayMsMin: 2_000,
  resendDelayMsMax: 30_000,
  /** Age of the ledger's data a submission or placement may be judged by while the ledger answers. */
  ledgerAgeMsMax: 1_000,
  /** How long a request may wait for the ledger before the cached copy is used, milliseconds. */
  ledgerWaitMsMax: 800,
  /** Deadline of one reading of authority and nodes, milliseconds. */
  ledgerReadMsMax: 10_000,
  /** Delay between polls of a ledger that does not answer, milliseconds. */
  ledgerRetryMsMin: 500,
  ledgerRetryMsMax: 10_000,
  /** How long a node may be away from its inbox before it counts as unreachable, milliseconds. */
  presenceGraceMs: 15_000,
  /** Reports older than this say nothing about a node any more, milliseconds. */
  reportAgeMsMax: 5 * 60_000,
  /** How long after the end of a run its node's next report is waited for, milliseconds. */
  settlingMsMax: 2_500,
  /** Between two looks for that report, milliseconds. */
  settlingLookMs: 100,
  /** Requests that wait for one at once; others are answered by what is known. */
  settlingWaitsMax: 32,
  /** Runs looked at to know what nodes were sent since they reported. */
  sentRunsMax: 10_000,
  /** How long an open inbox outweighs a ledger that hears nothing of the node, milliseconds. */
  silenceMsMax: 60_000,
  /** Changes kept for readers of `GET /v1/events` that come back. */
  changesKept: 10_000,
  /** Characters of authority updates in one inbox message; one larger update goes alone. */
  authorityMessageCharsMax: 512 * 1024,
  /** Nodes named in one answer as refused. */
  refusedListedMax: 1000,
  /** Bytes of journal in one page of `GET /v1/runs/:id/journal`. */
  journalPageBytesMax: 4 * 1024 * 1024,
  /** Runs in one page of deployments. */
  deploymentPageRunsMax: 5000,
  /** Journal events or changes read for a stream at once. */
  streamReadRows: 50,
  /** Runs of one outbox batch worked on at once: their commits share an fsync. */
  outboxRunsAtOnce: 16,
  /** Nodes unknown here that the ledger is asked about at once. */
  strangersAskedMax: 16,
  /** Between two questions to the ledger that a key unknown here gives rise to. */
  strangerKeyMsMin: 200,
  /** Characters of a problem document kept of a node. */
  problemCharsMax: 64 * 1024,
  /** Attempts at a write that lost against a concurrent one. */
  writeAttemptsMax: 5,
  /** Steps of one run without an outcome; of a run with more it is not told when it wakes. */
  openStepsMax: 1000,
  /** A run that sleeps for less keeps its process on its node. */
  shortSleepMs: 2_000,
  /** Between two looks for expired messages, milliseconds. */
  sweepMs: 1_000,
  /** Between two removals of old changes and revisions, milliseconds. */
  pruneMs: 60_000,
  /** Messages one expiry sweep gives up. */
  expiredAtOnce: 200,
  /** Revisions a retention sweep removes in one transaction. */
  retentionRevisionsAtOnce: 20,
} as const;
