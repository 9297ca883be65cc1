/**
 * The ways out of the engine that are not the script's business: they pass through every `catch`
 * that turns a SAL's error into an outcome.
 */
import type { HyphaError } from '@hypha/protocol';

/** The run ends unsuccessfully and is undone. */
export class RunFailure extends Error {
  readonly problem: HyphaError;
  constructor(problem: HyphaError) {
    super('run fails', { cause: problem });
    this.name = 'RunFailure';
    this.problem = problem;
  }
}

/**
 * This process may not go on with the run: the journal is lost to it, or a SAL call cannot be stopped.
 * Nothing more is touched; whoever owns the process ends it, and the run is taken over.
 */
export class EngineHalt extends Error {
  constructor(cause: unknown) {
    super('engine halts', { cause });
    this.name = 'EngineHalt';
  }
}

/** The guest died without an answer: its host crashed or was killed. */
export class GuestLost extends Error {
  constructor(cause: unknown) {
    super('guest is lost', { cause });
    this.name = 'GuestLost';
  }
}

/** A plan ends at a call that only a real run can answer. */
export class PlanEnd extends Error {
  /** Which call, and why, for people. */
  readonly reason: string;
  constructor(reason: string) {
    super('plan ends');
    this.name = 'PlanEnd';
    this.reason = reason;
  }
}

/** A step that only waited was left as it is: another guest or runner waits on. */
export class StepLeft extends Error {
  constructor() {
    super('step is left');
    this.name = 'StepLeft';
  }
}

const WAYS_OUT = [RunFailure, EngineHalt, GuestLost, PlanEnd, StepLeft];

export function isWayOut(error: unknown): boolean {
  return WAYS_OUT.some((way) => error instanceof way);
}
