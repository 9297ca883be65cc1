import { setImmediate } from 'node:timers/promises';
import {
  type GuestCall,
  GuestDisplaced,
  type GuestOutcome,
  type GuestProgram,
  type GuestTurn,
  type Json,
} from '@hypha/protocol';
import type { Guest } from '../ports.ts';

/** What a scripted guest's script is written against. */
export interface ScriptApi {
  call(verb: string, name: string | null, args?: Json): PromiseLike<Json>;
  log(message: string, fields?: Json): void;
  now(): number;
  readonly program: GuestProgram;
}
export type Script = (api: ScriptApi) => Promise<unknown>;

class ScriptError extends Error {
  readonly code: string;
  constructor(code: string, message: string) {
    super(message);
    this.code = code;
  }
}

/** The turn the host dies in, from 1; perhaps for what another script did. */
export type GuestDeath = number | { readonly turn: number; readonly isDisplaced: true };

/** Driven turn by turn like the sandbox, with a script that is a function of this process. */
export class ScriptedGuest implements Guest {
  readonly #script: Script;
  readonly #death: GuestDeath;
  readonly #tamper: (turn: GuestTurn) => void;
  #turns = 0;
  #calls: GuestCall[] = [];
  #logs: { message: string; fields: Json }[] = [];
  #made = 0;
  #end: GuestTurn['end'] = null;
  readonly #waiting = new Map<number, (outcome: GuestOutcome) => void>();
  #nowMs = 0;
  /** Call whose outcome began each turn after the first. */
  readonly turns: number[] = [];
  closed = false;

  constructor(
    script: Script,
    death: GuestDeath = Number.POSITIVE_INFINITY,
    tamper: (turn: GuestTurn) => void = () => undefined,
  ) {
    this.#script = script;
    this.#death = death;
    this.#tamper = tamper;
  }

  async start(program: GuestProgram, signal: AbortSignal): Promise<GuestTurn> {
    this.#nowMs = program.nowMs;
    const api: ScriptApi = {
      call: (verb, name, args = {}) => this.#call(verb, name, args),
      log: (message, fields = {}) => void this.#logs.push({ message, fields }),
      now: () => this.#nowMs,
      program,
    };
    this.#script(api).then(
      (value) => {
        this.#end ??= { ok: true, output: JSON.stringify(value ?? null) };
      },
      (error) => this.#fail(error),
    );
    return await this.#turn(signal);
  }

  async deliver(outcome: GuestOutcome, signal: AbortSignal): Promise<GuestTurn> {
    const settle = this.#waiting.get(outcome.call);
    if (settle === undefined) throw new Error(`call ${outcome.call} waits for nothing`);
    this.#waiting.delete(outcome.call);
    if (outcome.nowMs < this.#nowMs) throw new Error('time goes back in the guest');
    this.#nowMs = outcome.nowMs;
    this.turns.push(outcome.call);
    settle(structuredClone(outcome));
    return await this.#turn(signal);
  }

  async close(): Promise<void> {
    this.closed = true;
  }

  async #turn(signal: AbortSignal): Promise<GuestTurn> {
    this.#turns += 1;
    this.#dieInTime();
    await setImmediate();
    signal.throwIfAborted();
    const turn = { calls: this.#calls, logs: this.#logs, end: this.#end, cpuMs: 1 };
    this.#calls = [];
    this.#logs = [];
    this.#tamper(turn);
    return turn;
  }

  #dieInTime(): void {
    const { turn, isDisplaced } =
      typeof this.#death === 'number' ? { turn: this.#death, isDisplaced: false } : this.#death;
    if (this.#turns !== turn) return;
    throw isDisplaced ? new GuestDisplaced() : new Error('the sandbox host died');
  }

  /** A thenable that knows whether anyone looks at it, as the sandbox does. */
  #call(verb: string, name: string | null, args: Json): PromiseLike<Json> {
    this.#made += 1;
    const call = this.#made;
    this.#calls.push({ call, verb, name, args: structuredClone(args) });
    const { promise, resolve, reject } = Promise.withResolvers<Json>();
    promise.catch(() => undefined);
    let isHandled = false;
    this.#waiting.set(call, (outcome) => {
      if (outcome.ok) return resolve(outcome.value);
      const error = new ScriptError(outcome.error.code, outcome.error.message);
      if (!isHandled) this.#fail(error);
      reject(error);
    });
    const then: PromiseLike<Json>['then'] = (onValue, onError) => {
      isHandled = true;
      return promise.then(onValue, onError);
    };
    return { then };
  }

  #fail(error: unknown): void {
    const { code } = { code: 'E_SCRIPT', ...(error as { code?: string }) };
    const message = error instanceof Error ? error.message : String(error);
    const place = { line: 3, column: 7 };
    this.#end = { ok: false, failure: { code, message, place, stack: 'at deploy (3:7)' } };
  }
}
