import { type GuestOutcome, type GuestProgram, type GuestTurn, HyphaError } from '@hypha/protocol';
import type { TurnRequest } from './guest-host.ts';
import type { HostAnswer } from './host/host-message.ts';
import { SANDBOX_LIMITS } from './limits.ts';
import type { Seat } from './seat.ts';

export type GuestLimits = GuestProgram['limits'];

/** Where a script computes, as its limits allow it to. */
export interface GuestPlaces {
  /** Waits for memory, and leaves for a host of its own when the script may use more than others can share. */
  settle(seat: Seat, limits: GuestLimits, signal: AbortSignal): Promise<Seat>;
  leave(seat: Seat, limits: GuestLimits | undefined): Promise<void>;
}

/**
 * A script in a sandbox host: the engine's `Guest`. What the host says is checked against the turn protocol and
 * the script's limits, and one lie ends it. Throws `E_CPU` when a turn had to be killed, `E_MEMORY` or `E_SANDBOX`
 * when the host died in it, `GuestDisplaced` when it died in the turn of another, the signal's reason when aborted;
 * any throw means the guest is gone. A script that merely fails is a turn with an `end`.
 */
export class SandboxGuest {
  readonly #places: GuestPlaces;
  #seat: Seat;
  #limits: GuestLimits | undefined;
  #settling: Promise<unknown> | undefined;
  #callCount = 0;
  #cpuMs = 0;
  #isClosed = false;

  constructor(seat: Seat, places: GuestPlaces) {
    this.#seat = seat;
    this.#places = places;
  }

  async start(program: GuestProgram, signal: AbortSignal): Promise<GuestTurn> {
    this.#assertOpen();
    if (this.#settling !== undefined) {
      throw new HyphaError('E_INTERNAL', 'the guest was started twice');
    }
    const settling = this.#places.settle(this.#seat, program.limits, signal);
    this.#settling = settling;
    this.#seat = await settling;
    this.#limits = program.limits;
    this.#assertOpen();
    return await this.#turn({ type: 'start', program }, program.limits, signal);
  }

  async deliver(outcome: GuestOutcome, signal: AbortSignal): Promise<GuestTurn> {
    this.#assertOpen();
    if (this.#limits === undefined) throw new HyphaError('E_INTERNAL', 'the guest was not started');
    return await this.#turn({ type: 'deliver', outcome }, this.#limits, signal);
  }

  /** Idempotent; also after a throw and in the middle of a turn, which it ends. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    await this.#settling?.catch(() => undefined);
    this.#seat.host.abandon(this.#seat, closed());
    // The next script need not wait until this one is forgotten.
    void this.#places.leave(this.#seat, this.#limits);
  }

  #assertOpen(): void {
    if (this.#isClosed) throw closed();
  }

  async #turn(request: TurnRequest, limits: GuestLimits, signal: AbortSignal): Promise<GuestTurn> {
    const options = {
      timeoutMs: Math.max(0, limits.cpuMs - this.#cpuMs) + SANDBOX_LIMITS.killGraceMs,
      timeoutCode: 'E_CPU',
      answerBytesMax: SANDBOX_LIMITS.turnBytesMax + 2 * limits.outputBytes,
      signal,
    } as const;
    return await this.#seat.ask(request, options, (answer) => this.#check(answer, limits));
  }

  /** What a schema cannot see: calls in order and within their limit, time that only grows. */
  #check(answer: HostAnswer, limits: GuestLimits): GuestTurn {
    if (answer.type !== 'turn') throw new HyphaError('E_SANDBOX', 'the sandbox host sent no turn');
    const { turn } = answer;
    for (const { call } of turn.calls) {
      this.#callCount++;
      if (call !== this.#callCount || call > limits.hostCalls + 1) refuse('calls');
    }
    if (turn.cpuMs < this.#cpuMs) refuse('CPU time');
    this.#cpuMs = turn.cpuMs;
    return turn;
  }
}

function closed(): HyphaError {
  return new HyphaError('E_INTERNAL', 'the guest is closed');
}

function refuse(what: string): never {
  throw new HyphaError('E_SANDBOX', `the sandbox host sent ${what} that cannot be`);
}
