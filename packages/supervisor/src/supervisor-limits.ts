/** Bounds of one supervisor. Milliseconds end the names of times. */
export const LIMITS = {
  /** Between two looks at everything: settles what a lost message, job or event left behind. */
  sweepMs: 2_000,
  /** Jobs given to the queue at once; the rest follows as those are taken. */
  jobsPerPass: 500,
  /** One who waits for a time looks at the wall clock this often: it may have jumped. */
  wakeLookMs: 30_000,
  /**
   * How much one sweep at which a job waits beside a runner with room adds to the doubt about the queue: while
   * nothing begins, and while other runs come and go. At `doubtMax` the queue is emptied.
   */
  doubtQuiet: 15,
  doubtBusy: 1,
  doubtMax: 60,
  /** Times in a row that an emptied queue changed nothing before runners that take nothing are replaced. */
  resetsMax: 2,
  /** How long runners of a former supervisor may take to come back. */
  reattachMs: 5_000,
  /** How long a new runner may take to say hello; one that ended is seen at once. */
  helloMs: 60_000,
  /** Between two looks at whether runners that hold runs are heard of; they beat every 2 s. */
  listenMs: 500,
  /** A runner with runs in hand that says nothing for this long is killed. */
  silenceMsMax: 10_000,
  /** Runners that may die under a run in a row without one new event in its journal. */
  fruitlessEpochsMax: 10,
  /** From here on a run may be the one that kills them: no two such runs are handed out at once. */
  suspectEpochs: 3,
  /** A runner that ended is started again after this, doubled each time it does not last. */
  respawnMsMin: 100,
  respawnMsMax: 10_000,
  /** A runner that lasted this long starts with the shortest delay again. */
  respawnSteadyMs: 30_000,
  /** Runners may finish the step in flight for this long when the supervisor stops. */
  drainMs: 10_000,
  /** Between two looks at a resource. */
  observeMs: 2_000,
  /** One observation, one repair, one removal. */
  observeMsMax: 10_000,
  convergeMsMax: 180_000,
  removeMsMax: 60_000,
  /** Stopping one resource when the node shuts down. */
  haltMsMax: 15_000,
  haltsAtOnce: 8,
  /** A resource that failed is tried again after this, doubled each time. */
  repairMsMin: 1_000,
  repairMsMax: 60_000,
  /** Deployments that are worked on at once. */
  deploymentsAtOnce: 8,
  /** How long a run's end waits for the removal of what it no longer declares. */
  settleMs: 20_000,
  settleRetryMs: 250,
  /** Events kept for one stream; a slower reader has them from the store. */
  eventsHeardMax: 1_000,
  /** A stream that hears nothing looks whether it missed something. */
  streamLookMs: 30_000,
  /** Events that come within this are delivered together. */
  gatherMs: 50,
  /** Between the end of one delivery and the next, unless the first left something over. */
  restMs: 200,
  /** Delivery to ledger and coordinator. */
  deliveryMsMin: 200,
  deliveryMsMax: 30_000,
  /** One batch to the coordinator, bytes of JSON; its body limit is 4 MiB. */
  batchBytesMax: 3_500_000,
  batchItemsMax: 100,
  eventsPerItem: 200,
  runsPerBatch: 50,
  receiptsPerPage: 50,
  /** A receipt that the ledger has taken waits for a head with it: looked for this often, and alarmed about. */
  proofPollMs: 500,
  proofMsMax: 60_000,
  /** Acknowledgements that wait; the coordinator repeats what it was not told. */
  acksMax: 1_000,
  /** Sealed journals are dropped whole after this (design §10). */
  retentionMs: 30 * 86_400_000,
  retentionSweepMs: 600_000,
  /** How old the authority may be when new work is judged. */
  authorityAgeMs: 1_000,
  /** How long new work waits for the ledger to say whether there is something newer. */
  authorityWaitMs: 300,
  /** The same, when it would be refused otherwise. */
  authorityAskMs: 2_000,
  /** The coordinator brings updates at once; this is for when it does not. */
  authorityPollMs: 30_000,
  /** Head of the log that is older is said in the facts of the node. */
  headAgeSecondsMax: 300,
  reportMs: 10_000,
  /** Plaintext of all secrets of a node at once. */
  secretBytesMax: 64 * 1024 * 1024,
  /** Writing the values that one container needs. */
  provideMsMax: 10_000,
  /** Between two looks at secrets and their keys, when no run ended. */
  secretsTendMs: 600_000,
  resealsAtOnce: 100,
  /** From the ledger's knowing the new sealing key: an envelope lives a day, clocks differ by a minute. */
  sealKeyOverlapMs: 86_400_000 + 60_000,
} as const;

/** Doubles with every attempt, from 1; half of it is spread by `jitter` in [0, 1). */
export function backoffMs(
  attempt: number,
  bounds: { readonly min: number; readonly max: number },
  jitter: number,
): number {
  const ceiling = Math.min(bounds.max, bounds.min * 2 ** Math.min(attempt - 1, 30));
  return ceiling / 2 + (ceiling / 2) * jitter;
}
