import {
  type GuestCall,
  type GuestLog,
  type GuestOutcome,
  type GuestTurn,
  HyphaError,
  utf8,
} from '@hypha/protocol';
import { ENGINE_LIMITS } from './engine-limits.ts';
import { jsonBytes, wellFormed } from './json-bounds.ts';
import type { StepOutcome } from './run-record.ts';
import type { SagaContext } from './saga-context.ts';
import { RunFailure } from './saga-error.ts';
import { assertSameCall, scriptFailure } from './script-failure.ts';
import type { ScriptCall, StepRunner } from './step-runner.ts';

/**
 * One guest's way through the script: which calls it made, which outcomes it has. Recorded outcomes are
 * delivered in the order they were recorded, then new ones are made, by one loop (design §10).
 */
export class ScriptSession {
  readonly #context: SagaContext;
  readonly #runner: StepRunner;
  // call number → call without outcome, in the order they were made
  readonly #pending = new Map<number, ScriptCall>();
  readonly #recorded: readonly StepOutcome[];
  #delivered = 0;
  /** What `now()` answers in the guest, epoch milliseconds. */
  #nowMs: number;
  #calls = 0;
  #logLines = 0;
  #outputBytes = 0;
  /** JSON text of what the script returned; undefined while it runs. */
  output: string | undefined;

  /** @param nowMs what `now()` answers at the start, epoch milliseconds */
  constructor(context: SagaContext, runner: StepRunner, nowMs: number) {
    this.#context = context;
    this.#runner = runner;
    this.#nowMs = nowMs;
    this.#recorded = [...context.record.outcomes.values()];
  }

  /** Takes over what the guest did in one turn. Throws `RunFailure` when the script failed in it. */
  async absorb(turn: GuestTurn): Promise<void> {
    for (const call of turn.calls) this.#take(call);
    for (const log of turn.logs) await this.#log(log);
    if (turn.end === null) return;
    if (!turn.end.ok) this.#fail(turn.end.failure);
    if (this.output !== undefined) return;
    this.#countOutput(utf8(turn.end.output).length);
    this.output = turn.end.output;
  }

  /** True when the next outcome has to be made, not replayed. */
  get isAtNewStep(): boolean {
    return !this.#isReplaying && this.#pending.size > 0;
  }

  get #isReplaying(): boolean {
    return this.#delivered < this.#recorded.length;
  }

  /** The next outcome to deliver, or undefined when no call waits for one. */
  async nextOutcome(): Promise<GuestOutcome | undefined> {
    const outcome = this.#isReplaying ? this.#replayOutcome() : await this.#makeOutcome();
    if (outcome === undefined) return undefined;
    this.#pending.delete(outcome.step);
    this.#nowMs = Math.max(this.#nowMs, outcome.nowMs ?? 0);
    const nowMs = this.#nowMs;
    if (outcome.type === 'step-result') {
      return { call: outcome.step, ok: true, value: outcome.result, nowMs };
    }
    const { code, message } = outcome.error;
    return { call: outcome.step, ok: false, error: { code, message }, nowMs };
  }

  /** A script that returned must have come by every step that was begun. */
  assertNothingMissed(): void {
    const { intents, outcomes } = this.#context.record;
    for (const step of intents.keys()) if (!outcomes.has(step)) throw this.#missed(step);
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
    this.#pending.set(call.call, { ...call, madeAtMs: this.#nowMs });
  }

  #replayOutcome(): StepOutcome | undefined {
    const outcome = this.#recorded[this.#delivered];
    if (outcome === undefined) return undefined;
    const call = this.#pending.get(outcome.step);
    if (call === undefined) throw this.#missed(outcome.step);
    this.#assertSame(call);
    this.#delivered += 1;
    this.#runner.replay(call, outcome);
    return outcome;
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

  async #makeOutcome(): Promise<StepOutcome | undefined> {
    const [call] = this.#pending.values();
    if (call === undefined) return undefined;
    this.#assertSame(call);
    return await this.#runner.run(call);
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

  async #log(log: GuestLog): Promise<void> {
    this.#logLines += 1;
    const line = this.#logLines;
    const message = log.message.toWellFormed();
    let fields = null;
    try {
      fields = wellFormed(log.fields);
    } catch (error) {
      throw error instanceof HyphaError ? new RunFailure(error) : error;
    }
    const bytes = jsonBytes({ message, fields });
    if (bytes > ENGINE_LIMITS.logBytesMax) {
      throw new RunFailure(
        new HyphaError('E_OUTPUT', `log line ${line} takes ${bytes} bytes`, {
          hint: `a log line holds at most ${ENGINE_LIMITS.logBytesMax} bytes`,
        }),
      );
    }
    this.#countOutput(bytes);
    if (line <= this.#context.record.logLines) return;
    await this.#context.writer.buffer({ type: 'log', line, message, fields });
  }

  #countOutput(bytes: number): void {
    this.#outputBytes += bytes;
    const { outputBytes } = this.#context.grant.payload.limits;
    if (this.#outputBytes <= outputBytes) return;
    throw new RunFailure(
      new HyphaError(
        'E_OUTPUT',
        `log and output take ${this.#outputBytes} bytes, ${this.#outputBytes - outputBytes} more ` +
          `than limits.outputBytes of ${outputBytes}`,
      ),
    );
  }

  #fail(failure: Parameters<typeof scriptFailure>[1]): never {
    // A script that fails where it once went on took another path, unless a limit struck.
    const recorded = this.#recorded[this.#delivered];
    if (failure.code === 'E_SCRIPT' && recorded !== undefined) throw this.#missed(recorded.step);
    throw new RunFailure(scriptFailure(this.#context.record, failure));
  }
}
