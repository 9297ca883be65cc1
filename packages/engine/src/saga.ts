import {
  type GuestProgram,
  type GuestRequest,
  HyphaError,
  hex,
  isHyphaError,
  Problem,
  utf8,
  type Verifier,
} from '@hypha/protocol';
import type { Sals } from '@hypha/sal';
import { listCopedWith } from './coped-with.ts';
import { ENGINE_ABI, ENGINE_ABIS_REPLAYED, ENGINE_LIMITS } from './engine-limits.ts';
import { holdToPlan } from './expected-plan.ts';
import { JournalWriter } from './journal-writer.ts';
import { jsonBytes } from './json-bounds.ts';
import { KeptRuns } from './kept-runs.ts';
import { OVER } from './over.ts';
import { planScript } from './plan-run.ts';
import type { Clock, Fault, Guest, RunGrant, RunJournal } from './ports.ts';
import { RunDeadline } from './run-deadline.ts';
import { RunRecord } from './run-record.ts';
import { assertGoingOn, type SagaContext } from './saga-context.ts';
import { EngineHalt, RunFailure } from './saga-error.ts';
import { programOf, runScript, type ScriptEnd } from './script-run.ts';
import { openStepRunner } from './step-effect.ts';
import { undoFailedSteps, unwindRun } from './unwind.ts';

export interface SagaInput {
  readonly grant: RunGrant;
  readonly journal: RunJournal;
  readonly sals: Sals;
  /** A guest nobody has used. Called again when its host died. */
  readonly openGuest: (request: GuestRequest) => Promise<Guest>;
  readonly clock: Clock;
  readonly verifier: Verifier;
  /**
   * Aborted when the run was cancelled, or may not go on for the `HyphaError` that is its reason: the call in
   * flight is aborted and the run undone.
   */
  readonly cancel: AbortSignal;
  /** Aborted when this process is to end: the call in flight is finished and the run released. */
  readonly drain: AbortSignal;
  /** The envelope did not verify again (design §8, profile `execute`): no step is started any more. */
  readonly refusal?: HyphaError;
  readonly onFault?: (fault: Fault) => void;
}

export type SagaOutcome =
  /** The supervisor settles it and writes `finished`. */
  | { readonly state: 'committed'; readonly output: string }
  /** `finished` is written. */
  | { readonly state: 'failed' | 'cancelled' | 'rejected'; readonly problem: Problem }
  | { readonly state: 'succeeded' }
  /** Everything it does is to wait: the supervisor lets it go and queues it again at this time. */
  | { readonly state: 'waiting'; readonly wakeAtMs: number }
  /** Drained: to be queued again under a new epoch. */
  | { readonly state: 'released' };

/**
 * Runs one epoch of a run: replays what is recorded, goes on at the first step without an outcome, and
 * commits or unwinds (design §10). Rejects, having touched nothing since, when the journal was lost or a
 * SAL call could not be stopped: with the journal's error, or `E_INTERNAL`. The process must then end.
 */
export async function runSaga(input: SagaInput): Promise<SagaOutcome> {
  const record = new RunRecord(input.journal.recorded);
  const { committed, finished } = record;
  if (finished !== undefined) return endOf(finished);
  if (committed !== undefined) return { state: 'committed', output: committed.output };
  const { clock, grant } = input;
  const over = new AbortController();
  const deadline = new RunDeadline({
    clock,
    run: grant.run,
    wallMs: grant.payload.limits.wallMs,
    startedAtMs: record.startedAtMs,
    preparedMs: record.preparedMs,
  });
  const writer = new JournalWriter(input.journal, record, clock);
  const context: SagaContext = {
    grant,
    record,
    writer,
    kept: new KeptRuns(input.journal),
    sals: input.sals,
    clock,
    verifier: input.verifier,
    stop: stopSignal(input, deadline, over.signal),
    deadline,
    drain: input.drain,
    onFault: input.onFault ?? (() => undefined),
  };
  try {
    return await runOrUnwind(context, input);
  } catch (error) {
    throw error instanceof EngineHalt ? error.cause : error;
  } finally {
    over.abort(OVER);
    writer.close();
  }
}

async function runOrUnwind(context: SagaContext, input: SagaInput): Promise<SagaOutcome> {
  try {
    assertRunnable(context, input.refusal);
    return await runForward(context, input);
  } catch (error) {
    if (error instanceof EngineHalt) throw error;
    return await unwindRun(context, toFailure(context, error));
  }
}

function toFailure(context: SagaContext, error: unknown): HyphaError {
  if (error instanceof RunFailure) return error.problem;
  // A fault of ours: it would meet every other runner as well, and a run has to end (G2).
  context.onFault({ phase: 'engine', step: 0, verb: null, attempt: 1, error });
  return new HyphaError('E_INTERNAL', `the engine failed in ${context.grant.run}`, {
    cause: error,
  });
}

function assertRunnable(context: SagaContext, refusal: HyphaError | undefined): void {
  const { record, grant } = context;
  if (record.isUndoing) {
    // Only stands in when the journal has no problem of its own.
    const code = 'E_INTERNAL';
    throw new RunFailure(new HyphaError(code, `${grant.run} was being undone for a lost reason`));
  }
  if (refusal !== undefined) throw new RunFailure(refusal);
  const { mode, expect } = grant.payload;
  if (mode !== 'apply' && expect?.[grant.node.id] !== undefined) {
    throw new RunFailure(
      new HyphaError('E_ARGUMENT', `${grant.run} is a ${mode}: only an apply is held to a plan`),
    );
  }
  const abi = record.started?.abi ?? ENGINE_ABI;
  if (!ENGINE_ABIS_REPLAYED.includes(abi)) {
    throw new RunFailure(
      new HyphaError('E_UNSUPPORTED', `${grant.run} was started by engine ABI ${abi}`, {
        hint: `this runner has ABI ${ENGINE_ABI}; submit the work again`,
      }),
    );
  }
  assertGoingOn(context);
}

async function runForward(context: SagaContext, input: SagaInput): Promise<SagaOutcome> {
  const { record, writer, grant, clock } = context;
  const nowMs = record.started?.nowMs ?? clock.nowMs();
  const { runner, bootId } = grant;
  writer.appendSoon({ type: 'started', runner, bootId, abi: ENGINE_ABI, nowMs });
  if (grant.payload.mode === 'destroy') return await commit(context, 'null');
  const program = programOf(context.verifier, grant, nowMs);
  const end = await runMode(context, input.openGuest, program);
  if (end.ended) return await commit(context, end.output);
  await writer.flush();
  const { wakeAtMs } = end;
  return wakeAtMs === undefined ? { state: 'released' } : { state: 'waiting', wakeAtMs };
}

async function runMode(
  context: SagaContext,
  openGuest: SagaInput['openGuest'],
  program: GuestProgram,
): Promise<ScriptEnd> {
  if (context.grant.payload.mode === 'plan') {
    const planned = await planScript(context, openGuest, program);
    return planned.ended ? { ended: true, output: JSON.stringify(planned.plan) } : planned;
  }
  const held = await holdToPlan(context, openGuest, program);
  if (!held.ended) return held;
  return await runScript(context, { openGuest, openRunner: openStepRunner }, program);
}

/** The commit point: one append, all or nothing. After it the run only goes forward, by the supervisor. */
async function commit(context: SagaContext, output: string): Promise<SagaOutcome> {
  const outputSha256 = hex(context.verifier.sha256(utf8(output)));
  // What only looks, or works on what is there, declares nothing, whatever it tried.
  const isApply = context.grant.payload.mode === 'apply';
  const desired = isApply ? [...context.record.declared.values(), ...listCopedWith(context)] : [];
  const body = { type: 'committed', output, outputSha256, desired } as const;
  const bytes = jsonBytes(body);
  if (bytes > ENGINE_LIMITS.committedBytesMax) {
    throw new RunFailure(
      new HyphaError('E_OUTPUT', `output and declared resources take ${bytes} bytes`, {
        hint: `at most ${ENGINE_LIMITS.committedBytesMax} bytes: return less or declare less`,
      }),
    );
  }
  assertGoingOn(context);
  if (context.grant.payload.onFailure === 'keep') await undoFailedSteps(context);
  await context.writer.append(body);
  return { state: 'committed', output };
}

/** Aborts at a cancel and at the deadline. */
function stopSignal(input: SagaInput, deadline: RunDeadline, over: AbortSignal): AbortSignal {
  const { grant, cancel } = input;
  const stop = new AbortController();
  const onCancel = () => {
    const cancelled = () =>
      new HyphaError('E_CANCELLED', `${grant.run} was cancelled before its commit`);
    stop.abort(isHyphaError(cancel.reason) ? cancel.reason : cancelled());
  };
  if (cancel.aborted) onCancel();
  else cancel.addEventListener('abort', onCancel, { once: true, signal: over });
  deadline.watch(over, (error) => stop.abort(error));
  return stop.signal;
}

function endOf(finished: NonNullable<RunRecord['finished']>): SagaOutcome {
  if (finished.state === 'succeeded') return { state: 'succeeded' };
  return { state: finished.state, problem: Problem.parse(finished.problem) };
}
