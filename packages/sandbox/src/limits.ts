/** Bounds of the sandbox that are not the script's own (those are `limits` of the envelope). */
export const SANDBOX_LIMITS = {
  /** JSON of one call's arguments, bytes. A journal event holds twice as much. */
  callBytesMax: 256 * 1024,
  /** JSON of all calls a script makes before it waits, bytes. */
  turnCallBytesMax: 1024 * 1024,
  /** Calls, and log lines, of one turn. */
  turnItemsMax: 10_000,
  nameBytesMax: 4096,
  /** JSON of a thrown value. */
  thrownBytesMax: 64 * 1024,
  /** Guest stack, bytes. Deeper is a guest error; more would let it outrun the host's own stack. */
  guestStackBytes: 128 * 1024,
  /** Promise jobs between two looks: an interrupt ends one job, not the queue. */
  jobsPerLook: 100,
  /**
   * Looks of the engine at whether it has to stop, for each millisecond of `limits.cpuMs`. It looks once in 10,000
   * calls, turns of a loop and steps of a regular expression, and after every `jobsPerLook` promise jobs, wherever it
   * runs. A loop that does little takes 0.15 to 0.7 ms for that, so this ends it before the time does, and after the
   * same number of turns on any machine.
   */
  looksPerCpuMs: 1,
  stepsPerLook: 10_000,
  /** Least linear memory: the engine's own data and stack take 5 MiB of it. */
  memoryBytesMin: 8 * 1024 * 1024,
  /** One message to a host: source and input, or the result of one call. */
  requestBytesMax: 8 * 1024 * 1024,
  /** Answer of a host that is ready, bytes. */
  readyBytesMax: 4096,
  /** One turn, bytes, without what `limits.outputBytes` allows: calls and what each call adds. */
  turnBytesMax: 4 * 1024 * 1024,
  /** After the CPU budget, milliseconds until a host that does not answer is killed. */
  killGraceMs: 250,
  /** On a machine too busy to let a host compute, its turn may take so many times longer. */
  starvedFactorMax: 10,
  /** Until a new host has answered, milliseconds. */
  hostStartMsMax: 15_000,
  /** For a host to forget a script, milliseconds. */
  hostCloseMsMax: 1_000,
  /** Scripts in one host at once. */
  hostGuestsMax: 16,
  /** Host processes of one runner. */
  hostsMax: 64,
  /** A host takes no further script after so many, … */
  hostRunsMax: 200,
  /** … or so long after its first one, milliseconds, … */
  hostAgeMsMax: 300_000,
  /** … or when it is this large without a script in it, bytes, … */
  hostBytesMax: 256 * 1024 * 1024,
  /** … or after this much CPU time, seconds; twice that ends it from outside even if its runner died. */
  hostCpuSecondsMax: 900,
  /** A script that may use more than this gets a host of its own: bytes, … */
  sharedMemoryBytesMax: 128 * 1024 * 1024,
  /** … and CPU milliseconds, for which it can keep the others in its host waiting. */
  sharedCpuMsMax: 10_000,
  /** What all scripts of one runner may use together, bytes. A script that does not fit in waits. */
  allMemoryBytesMax: 2 * 1024 ** 3,
  /** Memory of scripts that have ended and is not collected yet, bytes, at which a host collects it. */
  garbageBytesMax: 128 * 1024 * 1024,
  /**
   * Writable memory of a host, bytes: what V8 sets aside at its start (0.55 GiB), the largest memories the
   * scripts in it may have, and those of scripts before them that are not collected yet.
   */
  hostDataBytesMax: 3 * 1024 ** 3,
  /** Files a host may hold open. */
  hostFilesMax: 64,
  /** CPU time for reading a script's `deployment`, milliseconds. */
  readCpuMs: 1_000,
  readMemoryBytes: 64 * 1024 * 1024,
  readOutputBytes: 64 * 1024,
} as const;
