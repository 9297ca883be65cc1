import type { GuestOutcome, GuestProgram, GuestTurn } from '@hypha/protocol';
import type {
  QuickJSContext,
  QuickJSHandle,
  QuickJSRuntime,
  QuickJSWASMModule,
} from 'quickjs-emscripten-core';
import { SANDBOX_LIMITS } from '../limits.ts';
import {
  findPlace,
  readThrown,
  SCRIPT_FILE,
  type ThrownValue,
  toGuestFailure,
} from './guest-failure.ts';
import { type ExportRead, GuestFault, type ScriptGuest } from './script-engine.ts';
import { Stopwatch } from './stopwatch.ts';
import { TurnRecord } from './turn-record.ts';
import type { WasmMemory } from './wasm.ts';

/** Without `Date`; the prelude removes what this cannot. `Eval` also is what evaluates the script. */
const INTRINSICS = {
  BaseObjects: true,
  Eval: true,
  JSON: true,
  MapSet: true,
  Promise: true,
  RegExp: true,
  StringNormalize: true,
  TypedArrays: true,
} as const;

/** Memory grows by a twentieth at least, so this full is full. */
const FULL = 0.9;
/** Jobs run after the budget has ended, to learn from the script's own rejection where it was. */
const LAST_JOBS = 3;
const NO_LIMITS = { cpuMs: 60_000, memoryBytes: 0, outputBytes: 0, hostCalls: 0 };

/** The functions the prelude hands to the host. */
interface Bound {
  readonly begin: QuickJSHandle;
  readonly deliver: QuickJSHandle;
  readonly firstUnhandled: QuickJSHandle;
  readonly describe: QuickJSHandle;
  readonly readExport: QuickJSHandle;
}

/** One script in one instance. Nothing is disposed of piece by piece: the whole instance is dropped. */
export class QuickJsGuest implements ScriptGuest {
  readonly #memory: WasmMemory;
  readonly #memoryBytesMax: number;
  readonly #prelude: string;
  readonly #runtime: QuickJSRuntime;
  readonly #context: QuickJSContext;
  #record = new TurnRecord(NO_LIMITS);
  #cpuMsMax = NO_LIMITS.cpuMs;
  #looks = 0;
  /** Promise jobs since the last look that was for them. */
  #jobs = 0;
  #bound: Bound | undefined;
  #end: GuestTurn['end'] = null;
  /** Calls without outcome. */
  #waiting = 0;
  /** What `begin` returned: rejected when the script was stopped in a place that cannot catch it. */
  #begun: QuickJSHandle | null = null;
  readonly #stopwatch = new Stopwatch();

  constructor(deps: {
    engine: QuickJSWASMModule;
    memory: WasmMemory;
    memoryBytesMax: number;
    prelude: string;
  }) {
    this.#memory = deps.memory;
    this.#memoryBytesMax = deps.memoryBytesMax;
    this.#prelude = deps.prelude;
    this.#runtime = deps.engine.newRuntime();
    this.#runtime.setMaxStackSize(SANDBOX_LIMITS.guestStackBytes);
    this.#runtime.setInterruptHandler(() => this.#onLook());
    // 'hypha' is loaded before the script, so the loader is only asked for what does not exist.
    this.#runtime.setModuleLoader(
      () => ({ error: new SyntaxError("a script imports from 'hypha' only") }),
      (_base, name) => name,
    );
    this.#context = this.#runtime.newContext({ intrinsics: INTRINSICS });
  }

  get memoryBytes(): number {
    return this.#memory.buffer.byteLength;
  }

  start(program: GuestProgram): GuestTurn {
    return this.#turn(() => {
      const loaded = this.#load(program);
      if (loaded !== null) this.#begun = this.#invoke('begin', loaded);
    });
  }

  deliver(outcome: GuestOutcome): GuestTurn {
    return this.#turn(() => {
      this.#waiting--;
      this.#invoke('deliver', this.#context.newString(JSON.stringify(outcome)));
    });
  }

  readExport(program: GuestProgram, name: string): ExportRead {
    let text: string | null = null;
    const { end } = this.#turn(() => {
      const loaded = this.#load(program);
      if (loaded === null) return;
      const value = this.#invoke('readExport', loaded, this.#context.newString(name));
      if (value === null) return;
      const isThere = this.#context.typeof(value) === 'string';
      text = isThere ? this.#readBounded(value, program.limits.outputBytes) : null;
      const refused = isThere ? this.#record.addValue(text) : undefined;
      if (refused === undefined) this.#end = { ok: true, output: '' };
      else this.#fail({ code: 'E_SCRIPT', message: `${name} holds ${refused}`, stack: '' });
    });
    return end?.ok === false ? { failure: end.failure } : { text };
  }

  /** Runs `action` and then the guest until it is idle, and takes what it did meanwhile. */
  #turn(action: () => void): GuestTurn {
    this.#stopwatch.start();
    try {
      action();
      this.#pump();
      this.#settleEnd();
    } catch (cause) {
      throw this.#faultFrom(cause);
    } finally {
      this.#stopwatch.stop();
    }
    return { ...this.#record.take(), end: this.#end, cpuMs: this.#stopwatch.spentMs };
  }

  #pump(): void {
    while (!this.#mustStop() && this.#runtime.hasPendingJob()) {
      this.#ranJobs(this.#runtime.executePendingJobs(SANDBOX_LIMITS.jobsPerLook));
    }
    if (!this.#mustStop()) return;
    for (let job = 0; job < LAST_JOBS && this.#runtime.hasPendingJob(); job++) {
      this.#runtime.executePendingJobs(1).error?.dispose();
    }
  }

  /** A look for so many jobs, however many turns they were spread over: a turn of few costs next to nothing. */
  #ranJobs(ran: ReturnType<QuickJSRuntime['executePendingJobs']>): void {
    ran.error?.dispose();
    this.#jobs += ran.error === undefined ? ran.value : SANDBOX_LIMITS.jobsPerLook;
    if (this.#jobs < SANDBOX_LIMITS.jobsPerLook) return;
    this.#jobs -= SANDBOX_LIMITS.jobsPerLook;
    this.#onLook();
  }

  #settleEnd(): void {
    const { fatal } = this.#record;
    if (fatal !== undefined) {
      this.#findWhereStopped();
      const seen = this.#end?.ok === false ? this.#end.failure : { place: null, stack: '' };
      this.#end = { ok: false, failure: { ...seen, code: fatal.code, message: fatal.message } };
    } else if (this.#end === null && this.#waiting === 0) {
      const message = 'the script waits for something that will never happen';
      this.#fail({ code: 'E_SCRIPT', message, stack: '' });
    } else if (this.#end?.ok === true) {
      const error = this.#invoke('firstUnhandled');
      if (error !== null && this.#context.typeof(error) === 'string') {
        this.#fail(readThrown(this.#readBounded(error, SANDBOX_LIMITS.thrownBytesMax)));
      }
    }
  }

  #findWhereStopped(): void {
    if (this.#end !== null || this.#begun === null) return;
    const state = this.#context.getPromiseState(this.#begun);
    if (state.type === 'rejected') this.#fail(this.#describe(state.error));
  }

  /** Evaluates prelude and script. Null when the script did not load: the end then says why. */
  #load(program: GuestProgram): QuickJSHandle | null {
    const { source, limits, ...facts } = program;
    this.#record = new TurnRecord(limits);
    this.#cpuMsMax = limits.cpuMs;
    this.#exposeHost(JSON.stringify(facts));
    const prelude = this.#context.evalCode(this.#prelude, 'hypha', { type: 'module' });
    if (prelude.error || this.#bound === undefined) {
      throw new GuestFault('E_INTERNAL', 'the prelude did not load');
    }
    const loaded = this.#context.evalCode(source, SCRIPT_FILE, { type: 'module' });
    if (!loaded.error) return loaded.value;
    const thrown = this.#describe(loaded.error);
    const isSyntax = thrown.code === 'E_SCRIPT' && thrown.message.startsWith('SyntaxError: ');
    this.#fail(isSyntax ? { ...thrown, code: 'E_SCRIPT_SYNTAX' } : thrown);
    return null;
  }

  #exposeHost(facts: string): void {
    const context = this.#context;
    const host = context.newObject();
    context.setProp(host, 'facts', context.newString(facts));
    const expose = (name: string, run: (...args: QuickJSHandle[]) => QuickJSHandle | undefined) =>
      context.setProp(
        host,
        name,
        context.newFunction(name, (...args) => run(...args)),
      );
    expose('call', (...args) => this.#onCall(...args));
    expose('log', (message, fields) => this.#onLog(message, fields));
    expose('end', (ok, text) => this.#onEnd(ok, text));
    expose('bind', (...functions) => this.#onBind(functions));
    context.setProp(context.global, '$host', host);
  }

  #onCall(
    verb?: QuickJSHandle,
    name?: QuickJSHandle,
    args?: QuickJSHandle,
    stack?: QuickJSHandle,
  ): QuickJSHandle {
    const isNamed = name !== undefined && this.#context.typeof(name) === 'string';
    const nameText = isNamed ? this.#readBounded(name, SANDBOX_LIMITS.nameBytesMax) : null;
    if (isNamed && nameText === null) return this.#context.newString('the name is too long');
    const argsText = this.#readBounded(args, SANDBOX_LIMITS.callBytesMax);
    const place = findPlace(this.#readBounded(stack, SANDBOX_LIMITS.thrownBytesMax) ?? '');
    const verbText = this.#readBounded(verb, 64) ?? '';
    const answer = this.#record.addCall(verbText, nameText, argsText, place);
    if (this.#mustStop()) return this.#context.false;
    if (typeof answer === 'string') return this.#context.newString(answer);
    this.#waiting++;
    return this.#context.newNumber(answer);
  }

  #onLog(message?: QuickJSHandle, fields?: QuickJSHandle): QuickJSHandle | undefined {
    const left = this.#record.outputBytesLeft;
    const refused = this.#record.addLog(
      this.#readBounded(message, left),
      this.#readBounded(fields, left),
    );
    if (this.#mustStop()) return this.#context.false;
    return refused === undefined ? undefined : this.#context.newString(refused);
  }

  #onEnd(ok?: QuickJSHandle, text?: QuickJSHandle): undefined {
    if (this.#end !== null) return;
    if (ok === undefined || !this.#context.sameValue(ok, this.#context.true)) {
      this.#fail(readThrown(this.#readBounded(text, SANDBOX_LIMITS.thrownBytesMax)));
      return;
    }
    const output = this.#readBounded(text, this.#record.outputBytesLeft);
    const refused = this.#record.addValue(output);
    if (refused === undefined && output !== null) this.#end = { ok: true, output };
    else
      this.#fail({ code: 'E_SCRIPT', message: `the returned value holds ${refused}`, stack: '' });
  }

  #onBind(functions: readonly QuickJSHandle[]): undefined {
    const [begin, deliver, firstUnhandled, describe, readExport] = functions.map((f) => f.dup());
    if (begin && deliver && firstUnhandled && describe && readExport) {
      this.#bound = { begin, deliver, firstUnhandled, describe, readExport };
    }
  }

  /** Bounds the steps of the script, which are the same everywhere, beside its time, which is not. */
  #onLook(): boolean {
    this.#looks += 1;
    const looksMax = this.#cpuMsMax * SANDBOX_LIMITS.looksPerCpuMs;
    if (this.#looks > looksMax) {
      const steps = looksMax * SANDBOX_LIMITS.stepsPerLook;
      this.#record.stop('E_CPU', `the script took more than the ${steps} steps of its limit`);
    }
    return this.#mustStop();
  }

  #mustStop(): boolean {
    if (this.#stopwatch.isOver(this.#cpuMsMax)) {
      this.#record.stop('E_CPU', `the script used more than ${this.#cpuMsMax} ms of CPU`);
    }
    return this.#record.fatal !== undefined;
  }

  /** Null when the guest threw: what it threw is then the end. */
  #invoke(name: keyof Bound, ...args: QuickJSHandle[]): QuickJSHandle | null {
    if (this.#bound === undefined) throw new GuestFault('E_INTERNAL', 'the prelude is not bound');
    const result = this.#context.callFunction(this.#bound[name], this.#context.undefined, ...args);
    if (!result.error) return result.value;
    if (this.#end?.ok !== false) this.#fail(this.#describe(result.error));
    return null;
  }

  #describe(error: QuickJSHandle): ThrownValue {
    if (this.#bound === undefined) return readThrown(null);
    const { describe } = this.#bound;
    const result = this.#context.callFunction(describe, this.#context.undefined, error);
    if (result.error) return readThrown(null);
    return readThrown(this.#readBounded(result.value, SANDBOX_LIMITS.thrownBytesMax));
  }

  #fail(thrown: ThrownValue): void {
    const failure = toGuestFailure(thrown);
    // Out of memory, the engine may have nothing left to make an error of and throws null.
    const isOutOfMemory =
      failure.code === 'E_MEMORY' || (thrown.message === 'threw null' && this.#isFull());
    const message = isOutOfMemory ? 'the script ran out of memory' : failure.message;
    const code = isOutOfMemory ? 'E_MEMORY' : failure.code;
    this.#end = { ok: false, failure: { ...failure, code, message } };
  }

  #isFull(): boolean {
    return this.memoryBytes >= FULL * this.#memoryBytesMax;
  }

  /** Text of a guest string; null when it is none or holds more bytes, and then it is not copied. */
  #readBounded(handle: QuickJSHandle | undefined, bytesMax: number): string | null {
    if (handle === undefined || this.#context.typeof(handle) !== 'string') return null;
    const length = this.#context.getProp(handle, 'length');
    if (!(this.#context.getNumber(length) <= bytesMax)) return null;
    const text = this.#context.getString(handle);
    return Buffer.byteLength(text) <= bytesMax ? text : null;
  }

  #faultFrom(cause: unknown): GuestFault {
    if (cause instanceof GuestFault) return cause;
    return this.#isFull()
      ? new GuestFault('E_MEMORY', 'the script ran out of memory', { cause })
      : new GuestFault('E_SANDBOX', 'the script crashed its engine', { cause });
  }
}
