/** Bounds of one node's journal. Exceeding one is an error the caller sees. */
export const JOURNAL_LIMITS = {
  /** Events of one run, bytes of JSON, so that a whole journal fits one line of the runner's socket. */
  runBytesMax: 16 * 1024 * 1024,
  /** A `committed` event with its output: it has to fit one delivery to the coordinator. */
  committedBytesMax: 3 * 1024 * 1024,
  /** Envelope and events of recent runs kept in memory: of one, beyond which it is read from the store, and of all. */
  rememberedRunBytesMax: 256 * 1024,
  rememberedBytesMax: 8 * 1024 * 1024,
  /** Runs without a terminal state. */
  unfinishedRunsMax: 10_000,
  /** Cancels of work that is not here, by one key and in all. */
  tombstonesPerKeyMax: 1000,
  tombstonesMax: 10_000,
  /** Replay rows outlive `exp` by this, for clocks that disagree (design §8). */
  replayGraceSeconds: 600,
  /** Writes that lost a race for the receipt chain and are tried again. */
  attemptsMax: 8,
} as const;
