import { type GuestCall, type GuestOutcome, type GuestTurn, HyphaError } from '@hypha/protocol';
import { ENGINE_LIMITS } from './engine-limits.ts';
import { OVER } from './over.ts';
import type { StepOutcome } from './run-record.ts';
import { assertGoingOn, type GuestContext, type SagaContext } from './saga-context.ts';
import { EngineHalt, GuestLost, RunFailure } from './saga-error.ts';
import { assertSameCall, scriptFailure } from './script-failure.ts';
import { ScriptOutput } from './script-output.ts';
import type { OpenStepRunner, ScriptCall, StepRunner } from './step-runner.ts';
import { StepScheduler } from './step-scheduler.ts';
import { WakeTimes } from './wake-times.ts';

/** What a session does next. */
export type SessionNext =
  | { readonly next: 'deliver'; readonly outcome: GuestOutcome }
  /** No call is left without outcome. */
  | { readonly next: 'end' }
  /** Drained: what was under way has its outcome, and nothing else is begun. */
  | { readonly next: 'drained' }
  /** All there is to do is to wait up to this time, epoch milliseconds. */
  | { readonly next: 'park'; readonly wakeAtMs: number };

/**
 * One guest's way through the script: which calls it made, which outcomes it has. Live and in replay the order in
 * which outcomes were recorded is the order they are delivered in (design §10). Only after the last recorded one
 * is any call begun.
 */
export class ScriptSession {
  readonly #context: GuestContext;
  readonly #runner: StepRunner;
  readonly #scheduler: StepScheduler;
  readonly #wakeTimes: WakeTimes;
  /** Ends the steps of this guest. */
  readonly #stop = new AbortController();
  readonly #over = new AbortController();
  // call number → call without outcome, in the order they were made
  readonly #pending = new Map<number, ScriptCall>();
  /** Calls to be begun. */
  #fresh: ScriptCall[] = [];
  /** How many outcomes were on record when this guest began. */
  readonly #recorded: number;
  #delivered = 0;
  #changed = Promise.withResolvers<void>();
  /** What `now()` answers in the guest, epoch milliseconds. */
  #nowMs: number;
  #calls = 0;
  readonly #output: ScriptOutput;

  /** @param nowMs what `now()` answers at the start, epoch milliseconds */
  constructor(run: SagaContext, openRunner: OpenStepRunner, nowMs: number) {
    const notify = () => this.#changed.resolve();
    this.#wakeTimes = new WakeTimes(run.clock, notify);
    this.#context = { ...run, stop: this.#stop.signal, wakeTimes: this.#wakeTimes };
    this.#runner = openRunner(this.#context);
    this.#scheduler = new StepScheduler(this.#runner, notify);
    this.#recorded = run.record.completions.length;
    this.#output = new ScriptOutput(this.#context);
    this.#nowMs = nowMs;
    const { signal } = this.#over;
    const onStop = () => {
      this.#stop.abort(run.stop.reason);
      notify();
    };
    if (run.stop.aborted) onStop();
    else run.stop.addEventListener('abort', onStop, { once: true, signal });
    run.drain.addEventListener('abort', notify, { once: true, signal });
    run.writer.broken.addEventListener('abort', notify, { once: true, signal });
  }

  /** JSON text of what the script returned; undefined while it runs. */
  get output(): string | undefined {
    return this.#output.returned;
  }

  /** Takes over what the guest did in one turn. Throws `RunFailure` when the script failed in it. */
  async absorb(turn: GuestTurn): Promise<void> {
    for (const call of turn.calls) this.#take(call);
    for (const log of turn.logs) await this.#output.log(log);
    if (turn.end === null) return;
    if (!turn.end.ok) this.#fail(turn.end.failure);
    this.#output.end(turn.end.output);
  }

  /** Waits until there is something to do. Throws `RunFailure` when the run was stopped or a call says so. */
  async next(): Promise<SessionNext> {
    for (;;) {
      this.#changed = Promise.withResolvers();
      this.#assertGoing();
      const { aborted: isDraining } = this.#context.drain;
      if (isDraining) this.#scheduler.close();
      this.#begin();
      const outcome = this.#takeOutcome();
      if (outcome !== undefined) return { next: 'deliver', outcome };
      if (this.#pending.size === 0) return { next: 'end' };
      if (isDraining && this.#scheduler.working === 0) return { next: 'drained' };
      const wakeAtMs = isDraining ? undefined : this.#findWakeTime();
      if (wakeAtMs !== undefined) return { next: 'park', wakeAtMs };
      await this.#changed.promise;
    }
  }

  /** Nothing is left to do for this guest but what may be left as it is. Idempotent. */
  close(): void {
    this.#over.abort(OVER);
    this.#beginNothing();
  }

  #beginNothing(): void {
    this.#scheduler.close();
    this.#wakeTimes.close();
  }

  /**
   * Ends what is under way: at once, but after a lost guest by waiting for its outcome, which the next guest is
   * told. Resolves once all of it ended, to the error that the run then goes on with.
   */
  async abandon(error: unknown): Promise<unknown> {
    // A stop of the run still has to reach what is under way.
    this.#beginNothing();
    if (!(error instanceof GuestLost)) this.#stop.abort(reasonOf(error));
    if (error instanceof EngineHalt) return error;
    await this.#scheduler.whenIdle();
    const { failure } = this.#scheduler;
    const isGraver =
      failure instanceof EngineHalt || (error instanceof GuestLost && failure !== undefined);
    return isGraver ? failure : error;
  }

  /** A script that returned must have come by every step that was begun. */
  assertNothingMissed(): void {
    const [missed] = this.#context.record.openSteps;
    if (missed !== undefined) throw this.#missed(missed);
  }

  get #isReplaying(): boolean {
    return this.#delivered < this.#recorded;
  }

  #take(call: GuestCall): void {
    if (call.call !== this.#calls + 1) {
      throw new RunFailure(
        new HyphaError('E_SANDBOX', `the guest numbered call ${this.#calls + 1} as ${call.call}`),
      );
    }
    this.#calls = call.call;
    const { hostCalls } = this.#context.grant.payload.limits;
    // The first call too many is refused at its place in the script; one that goes on ends the run.
    if (call.call > hostCalls + 1) {
      throw new RunFailure(
        new HyphaError('E_HOST_CALLS', `the script made more than ${hostCalls} calls`),
      );
    }
    this.#assertSame(call);
    const made = { ...call, madeAtMs: this.#nowMs };
    this.#pending.set(call.call, made);
    if (!this.#isReplaying) this.#fresh.push(made);
  }

  /** Gives the scheduler what was made since. After a replay that is every call without outcome. */
  #begin(): void {
    const { intents } = this.#context.record;
    // What was begun before a crash was admitted then and held its locks, so it comes first.
    const [open, others] = partition(this.#fresh, ({ call }) => intents.has(call));
    this.#fresh = [];
    for (const call of [...open, ...others]) this.#scheduler.add(call);
  }

  #assertGoing(): void {
    const { broken } = this.#context.writer;
    if (this.#scheduler.failure !== undefined) throw this.#scheduler.failure;
    if (broken.aborted) throw broken.reason;
    assertGoingOn(this.#context);
  }

  /** The next outcome in the order of the record, once there is one. */
  #takeOutcome(): GuestOutcome | undefined {
    const outcome = this.#context.record.completions[this.#delivered];
    if (outcome === undefined) return undefined;
    const call = this.#pending.get(outcome.step);
    if (this.#isReplaying) {
      if (call === undefined) throw this.#missed(outcome.step);
      this.#runner.replay(call, outcome);
    } else if (!this.#scheduler.takeSettled(outcome.step)) return undefined;
    this.#delivered += 1;
    this.#pending.delete(outcome.step);
    if (this.#delivered === this.#recorded) this.#fresh = [...this.#pending.values()];
    this.#nowMs = Math.max(this.#nowMs, outcome.nowMs ?? 0);
    return outcomeFor(outcome, this.#nowMs);
  }

  /** When the run may be let go until then: every call waits, and for long enough. */
  #findWakeTime(): number | undefined {
    const { working, waiting, queued } = this.#scheduler;
    const isIdle = working === 0 && queued === 0 && waiting === this.#wakeTimes.count;
    if (!isIdle || this.#isReplaying) return undefined;
    const { clock, deadline } = this.#context;
    const wakeAtMs = Math.min(this.#wakeTimes.earliestMs, deadline.endsAtMs);
    return wakeAtMs - clock.nowMs() < ENGINE_LIMITS.parkMsMin ? undefined : wakeAtMs;
  }

  /** The script did not come by a step that is on record. */
  #missed(step: number): RunFailure {
    const recorded = this.#context.record.intents.get(step) ?? null;
    return new RunFailure(
      new HyphaError('E_NONDETERMINISM', `step ${step} is on record, but the script goes past it`, {
        where: { step },
        details: { recorded, made: null },
      }),
    );
  }

  #assertSame(call: GuestCall): void {
    const intent = this.#context.record.intents.get(call.call);
    if (intent === undefined) return;
    try {
      assertSameCall(call, intent);
    } catch (error) {
      throw error instanceof HyphaError ? new RunFailure(error) : error;
    }
  }

  #fail(failure: Parameters<typeof scriptFailure>[1]): never {
    // A script that fails where it once went on took another path, unless a limit struck.
    const recorded = this.#isReplaying
      ? this.#context.record.completions[this.#delivered]
      : undefined;
    if (failure.code === 'E_SCRIPT' && recorded !== undefined) throw this.#missed(recorded.step);
    throw new RunFailure(scriptFailure(this.#context.record, failure));
  }
}

function outcomeFor(outcome: StepOutcome, nowMs: number): GuestOutcome {
  const { step: call } = outcome;
  if (outcome.type === 'step-result') return { call, ok: true, value: outcome.result, nowMs };
  const { code, message } = outcome.error;
  return { call, ok: false, error: { code, message }, nowMs };
}

function reasonOf(error: unknown): HyphaError {
  if (error instanceof RunFailure) return error.problem;
  return new HyphaError('E_INTERNAL', 'the script goes no further', { cause: error });
}

function partition<T>(items: readonly T[], isFirst: (item: T) => boolean): [T[], T[]] {
  return [items.filter((item) => isFirst(item)), items.filter((item) => !isFirst(item))];
}
