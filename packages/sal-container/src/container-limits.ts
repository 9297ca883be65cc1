/** Every bound of the container SAL. Exceeding one is an error, never a silent drop. */
export const CONTAINER_LIMITS = {
  /** Download and unpacking of one image. */
  pullMsMax: 600_000,
  /** OCI index, manifest or config blob. */
  imageJsonBytesMax: 4 * 1024 * 1024,
  /** An image nobody uses is kept this long, so that applying again needs no registry. */
  imageKeepMs: 3_600_000,
  /** One command of the OCI runtime, or the monitor's report that a container was created. */
  runtimeMsMax: 30_000,
  /** From a start to the container's own program being the process. */
  takeoverMsMax: 1000,
  /** From the stop signal to SIGKILL. */
  stopGraceMs: 10_000,
  /** From SIGKILL to giving up: only a process stuck in the kernel takes longer. */
  killMsMax: 10_000,
  /** The monitor writes the exit code and ends within this after its container. */
  monitorEndMsMax: 5000,
  /** Log kept per instance; the monitor starts the file over when it is full. */
  logBytesMax: 4 * 1024 * 1024,
  /** One line of a log as shown; what is longer is cut into several. */
  logLineBytesMax: 64 * 1024,
  /** Lines of log in the error of a container that did not become healthy. */
  logTailLines: 20,
  logPollMs: 200,
  /** `files` and the runtime's own files of one instance. */
  runFolderBytesMax: 64 * 1024 * 1024,
  /** Time between two looks at something that is about to change. */
  pollMsMin: 5,
  pollMsMax: 250,
  /** One health probe. */
  probeMsMax: 5000,
  /** One health probe while observing, where many containers wait for their turn. */
  observeProbeMsMax: 1000,
  /** What was seen of a container's health is good for this long to whoever observes. */
  observeHealthMs: 10_000,
  /** Delay before the first restart; doubled for each further one. */
  restartMsMin: 500,
  restartMsMax: 60_000,
  /** Who ran this long starts counting restarts from zero. */
  restartForgivenMs: 60_000,
  /** How long output is read on after the end of an `exec`, when something else holds the pipes. */
  execPipeMsMax: 500,
  /** How long the runtime of an `exec` that is stopped has to say which process it started. */
  execStartMsMax: 2_000,
  /** Bytes of stdout and of stderr that `exec` returns. */
  execOutputBytesMax: 64 * 1024,
} as const;
