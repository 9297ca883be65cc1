import { type GuestOutcome, type GuestProgram, type GuestTurn, HyphaError } from '@hypha/protocol';
import type { HostRequest } from './host/host-message.ts';
import { SANDBOX_LIMITS } from './limits.ts';
import type { SandboxHost } from './sandbox-host.ts';

/** Takes the host back: usable when its script ended in good order. */
export type ReleaseHost = (host: SandboxHost, isClean: boolean) => void;

/**
 * A script in a sandbox host: the engine's `Guest`. What the host says is checked against the turn
 * protocol and the script's limits, and one lie ends it. Throws `E_CPU` when a turn had to be killed,
 * `E_MEMORY` or `E_SANDBOX` when the host died, the signal's reason when aborted; any throw means the
 * guest is gone. A script that merely fails is a turn with an `end`.
 */
export class SandboxGuest {
  readonly #host: SandboxHost;
  readonly #release: ReleaseHost;
  #limits: GuestProgram['limits'] | undefined;
  #callCount = 0;
  #cpuMs = 0;
  #isClosed = false;
  #isBroken = false;

  constructor(host: SandboxHost, release: ReleaseHost) {
    this.#host = host;
    this.#release = release;
  }

  async start(program: GuestProgram, signal: AbortSignal): Promise<GuestTurn> {
    if (this.#limits !== undefined)
      throw new HyphaError('E_INTERNAL', 'the guest was started twice');
    this.#limits = program.limits;
    return await this.#turn({ type: 'start', program }, program.limits, signal);
  }

  async deliver(outcome: GuestOutcome, signal: AbortSignal): Promise<GuestTurn> {
    if (this.#limits === undefined) throw new HyphaError('E_INTERNAL', 'the guest was not started');
    return await this.#turn({ type: 'deliver', outcome }, this.#limits, signal);
  }

  /** Idempotent; also after a throw and in the middle of a turn, which it ends. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#release(this.#host, !this.#isBroken);
  }

  async #turn(
    request: HostRequest,
    limits: GuestProgram['limits'],
    signal: AbortSignal,
  ): Promise<GuestTurn> {
    if (this.#isClosed) throw new HyphaError('E_INTERNAL', 'the guest is closed');
    // Broken until it has answered well: also when `close` comes in the middle.
    this.#isBroken = true;
    try {
      const answer = await this.#host.ask(request, {
        timeoutMs: Math.max(0, limits.cpuMs - this.#cpuMs) + SANDBOX_LIMITS.killGraceMs,
        timeoutCode: 'E_CPU',
        answerBytesMax: SANDBOX_LIMITS.turnBytesMax + 2 * limits.outputBytes,
        signal,
      });
      if (answer.type !== 'turn')
        throw new HyphaError('E_SANDBOX', 'the sandbox host sent no turn');
      this.#check(answer.turn, limits);
      this.#isBroken = false;
      return answer.turn;
    } catch (error) {
      await this.#host.stop();
      throw error;
    }
  }

  /** What a schema cannot see: calls in order and within their limit, time that only grows. */
  #check(turn: GuestTurn, limits: GuestProgram['limits']): void {
    for (const { call } of turn.calls) {
      this.#callCount++;
      if (call !== this.#callCount || call > limits.hostCalls + 1) this.#refuse('calls');
    }
    if (turn.cpuMs < this.#cpuMs) this.#refuse('CPU time');
    this.#cpuMs = turn.cpuMs;
  }

  #refuse(what: string): never {
    throw new HyphaError('E_SANDBOX', `the sandbox host sent ${what} that cannot be`);
  }
}
