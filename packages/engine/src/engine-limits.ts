/** Bounds of one run that are not the signer's to choose. Exceeding one is an error the run ends with. */
export const ENGINE_LIMITS = {
  /** Arguments of one call, bytes of JSON: with its spec and before-image an intent fits the journal. */
  argsBytesMax: 128 * 1024,
  /** What one call returns, bytes of JSON. */
  resultBytesMax: 256 * 1024,
  /** One log line with its fields, bytes of JSON. */
  logBytesMax: 64 * 1024,
  /** Output and desired record of the commit, bytes of JSON. */
  committedBytesMax: 2 * 1024 * 1024,
  /** Characters of an error's message that the journal keeps. */
  messageCharsMax: 8 * 1024,
  /** Details of the problem a run ends with, bytes of JSON: both sides of a difference. */
  detailsBytesMax: 160 * 1024,
  /** Characters of a refused name that the journal keeps. */
  nameCharsMax: 256,
  /** Characters of why a thing is left over. */
  reasonCharsMax: 300,
  /** Leftovers named in `finished`; every one has its `undo-result` too. */
  leftoversMax: 200,
  /** Tries of one SAL call whose error is retryable, and how long they may take in all. */
  tryAttemptsMax: 12,
  tryMsMax: 60_000,
  tryDelayMsMin: 100,
  tryDelayMsMax: 5_000,
  /** Steps of a kept run that are named at once. The prelude knows it too. */
  keptStepsMax: 1000,
  /** Tries of one undo, and how long they may take in all. */
  undoAttemptsMax: 5,
  undoMsMax: 120_000,
  /** How long a SAL call may go on after its signal was aborted (step contract S6). */
  abortGraceMsMax: 30_000,
  /** Events that wait for the next append, and their bytes of JSON. */
  bufferedBodiesMax: 200,
  bufferedBytesMax: 2 * 1024 * 1024,
  /** What waits for the next append gets one of its own after this long. */
  bufferedMsMax: 200,
  /** Guests of one epoch that may be lost in their own turn; the last loss ends the run. */
  guestDeathsMax: 2,
  /** How often the guest of one epoch may be lost for what another script did. */
  guestDisplacementsMax: 50,
  /** Calls of one run that are under way at once. Those that only wait do not count. */
  stepsAtOnceMax: 16,
  /** Longest that a SAL call may take, with its repetitions, unless its verb says otherwise. */
  stepMsMax: 600_000,
  /** Longest that fetching what a step needs may take, with its repetitions. */
  prepareMsMax: 30 * 60_000,
  /** A run that only waits is let go when it waits for at least this long. */
  parkMsMin: 2_000,
  /** A wait is made of parts, so that a wall clock that is set is noticed. */
  sleepPartMsMax: 60 * 60_000,
} as const;

/**
 * Pinned by a run's first `started`: what recorded intents and outcomes mean. Grows when a journal
 * written by an older engine could no longer be replayed or undone.
 */
export const ENGINE_ABI = '2';

/** Runs that began with one of these are replayed: '1' ran its steps one by one, and its clock stood still. */
export const ENGINE_ABIS_REPLAYED: readonly string[] = ['1', ENGINE_ABI];
