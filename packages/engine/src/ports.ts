/**
 * What the engine needs from outside. It has no queue, no clock and no I/O of its own, so the same code
 * runs in a runner, in `hypha simulate` and in tests.
 */
import type {
  DesiredResource,
  GuestOutcome,
  GuestProgram,
  GuestTurn,
  JournalBody,
  JournalEvent,
  PlanDocument,
  ScriptPayload,
} from '@hypha/protocol';

/**
 * A script in its sandbox, driven turn by turn. Any throw means the guest is gone for good. Once a turn
 * had an `end`, later outcomes are still delivered: a later `end` that is not ok (an unhandled rejection)
 * fails the run.
 */
export interface Guest {
  start(program: GuestProgram, signal: AbortSignal): Promise<GuestTurn>;
  /** Delivers one outcome and runs the guest until it is idle again. */
  deliver(outcome: GuestOutcome, signal: AbortSignal): Promise<GuestTurn>;
  /** Idempotent; also after a throw. */
  close(): Promise<void>;
}

/** The run's journal, as the owner of an epoch may write it. */
export interface RunJournal {
  /** Everything recorded before this epoch, in order. */
  readonly recorded: readonly JournalEvent[];
  /**
   * Appends in order, all or none; durable when it resolves. Throws `E_CANCELLED`, `E_OUTPUT`, `E_SIZE`,
   * `E_CONFLICT`, `E_KEY_REVOKED`, `E_SCOPE`, `E_SIG_THRESHOLD` or `E_AUDIENCE` when the run may not go on:
   * it is then undone. Any other error (`E_STALE_EPOCH`: another
   * runner owns the run) means the journal is lost to this runner: the engine stops at once and touches
   * nothing.
   */
  append(bodies: readonly JournalBody[]): Promise<void>;
  /**
   * The journal of another run of this deployment that failed and was signed to be kept. Throws `E_NOT_FOUND` for
   * any other, `E_TOO_LATE` when a later run of the deployment has committed since.
   */
  readKept(target: string): Promise<readonly JournalEvent[]>;
}

export interface Clock {
  /** Wall clock, epoch milliseconds: for records, never for measuring. */
  nowMs(): number;
  /** Monotonic milliseconds. */
  monotonicMs(): number;
  /** Rejects with the signal's reason when aborted. */
  sleep(ms: number, signal: AbortSignal): Promise<void>;
  /** A number in [0, 1) that spreads retries. Never reaches a script. */
  jitter(): number;
}

/** What the supervisor grants with an epoch: all the engine knows of the run. */
export interface RunGrant {
  readonly run: string;
  readonly epoch: number;
  readonly payload: ScriptPayload;
  readonly node: {
    readonly id: string;
    readonly name: string;
    readonly labels: Record<string, string>;
  };
  readonly runner: string;
  readonly bootId: string;
  /** The committed record of this deployment on this node, before this run. */
  readonly committed: readonly DesiredResource[];
  /** What else the deployment has here: retained data, and what failed runs were signed to keep. Default: nothing. */
  readonly remains?: readonly DesiredResource[] | undefined;
  /** Name → version of the secrets this run was given, the same in every epoch. */
  readonly secrets: Readonly<Record<string, string>>;
  /** The plan that `expect` names, where the node still has it: only to show what changed. */
  readonly expectedPlan: PlanDocument | null;
}

/** Something went wrong and the engine coped: for the log of whoever composed it, never for a script. */
export interface Fault {
  readonly phase: 'prepare' | 'plan' | 'probe' | 'apply' | 'undo' | 'guest' | 'engine';
  /** 0 for the guest and the engine itself. */
  readonly step: number;
  readonly verb: string | null;
  /** From 1. */
  readonly attempt: number;
  readonly error: unknown;
}
