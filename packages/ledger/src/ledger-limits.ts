/** Bounds of one ledger. Exceeding one is an error the caller sees. */
export const LEDGER_LIMITS = {
  /** Time a node has to answer a challenge. */
  challengeMs: 60_000,
  /** Challenges out at once. */
  challenges: 100_000,
  /** Nodes that wait for an admin; how many of them from one IP address; how long after they last asked. */
  pendingNodes: 1_000,
  pendingPerAddress: 32,
  pendingMs: 24 * 3_600_000,
  /** Times that an enrolment is judged anew because the authority changed under it. */
  enrolAttempts: 5,
  /** Reports of one request. */
  reportsPerBatch: 500,
  /** Envelopes of one page of entries, bytes of JSON; a page holds at least one entry. */
  entryPageBytes: 8 * 1024 * 1024,
  /** How long a signed checkpoint is handed out before a new one is signed. */
  checkpointMs: 1_000,
  /** A clock that is set back by at most this does not date a head before an earlier one. */
  clockStepSecondsMax: 600,
  /** Entries read at once when the whole log is checked: of the largest, 100 MiB. */
  checkedEntries: 250,
  /** Report intervals of silence after which a node counts as unreachable. */
  silentIntervals: 3,
  labelsPerQuery: 16,
} as const;
