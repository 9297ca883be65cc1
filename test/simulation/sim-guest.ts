import { setImmediate } from 'node:timers/promises';
import type { Guest } from '@hypha/engine';
import type {
  GuestCall,
  GuestLog,
  GuestOutcome,
  GuestProgram,
  GuestTurn,
  Json,
} from '@hypha/protocol';
import { type Op, opsOf } from './sim-script.ts';

/** A guest that does what its input says, and dies when its host does. */
export class SimGuest implements Guest {
  readonly #isLost: () => Error | undefined;
  readonly #onClose: () => void;
  #calls: GuestCall[] = [];
  #logs: GuestLog[] = [];
  #made = 0;
  #end: GuestTurn['end'] = null;
  readonly #waiting = new Map<number, (outcome: GuestOutcome) => void>();

  /** @param isLost asked in every turn: why its host is gone; undefined while it is there */
  constructor(isLost: () => Error | undefined, onClose: () => void) {
    this.#isLost = isLost;
    this.#onClose = onClose;
  }

  async start(program: GuestProgram, signal: AbortSignal): Promise<GuestTurn> {
    this.#script(opsOf(program.input)).then(
      () => {
        this.#end ??= { ok: true, output: '"done"' };
      },
      (error: unknown) => this.#fail(error),
    );
    return await this.#turn(signal);
  }

  async deliver(outcome: GuestOutcome, signal: AbortSignal): Promise<GuestTurn> {
    this.#waiting.get(outcome.call)?.(outcome);
    this.#waiting.delete(outcome.call);
    return await this.#turn(signal);
  }

  async close(): Promise<void> {
    this.#onClose();
  }

  async #turn(signal: AbortSignal): Promise<GuestTurn> {
    await setImmediate();
    const lost = this.#isLost();
    if (lost !== undefined) throw lost;
    signal.throwIfAborted();
    const turn = { calls: this.#calls, logs: this.#logs, end: this.#end, cpuMs: 1 };
    this.#calls = [];
    this.#logs = [];
    return turn;
  }

  async #script(ops: readonly Op[]): Promise<void> {
    for (const op of ops) await this.#do(op);
  }

  async #do(op: Op): Promise<void> {
    switch (op.op) {
      case 'ensure':
        await this.#call('thing.ensure', op.name, { size: op.size, fails: op.fails ?? 'never' });
        return;
      case 'mark':
        await this.#call('thing.mark', op.name, { mark: op.mark });
        return;
      case 'run':
        await this.#call('thing.run', op.name, {
          idempotent: op.idempotent,
          mayBeDown: op.mayBeDown ?? false,
        });
        return;
      case 'peek':
        await this.#call('thing.peek', op.name, null);
        return;
      case 'sleep':
        await this.#call('sleep', null, { duration: op.ms });
        return;
      case 'log':
        this.#logs.push({ message: 'line', fields: {} });
        return;
      case 'throw':
        throw Object.assign(new Error('on purpose'), { code: 'E_SCRIPT' });
      case 'all':
        await Promise.all(op.ops.map((each) => this.#do(each)));
        return;
      case 'try':
        return await this.#do(op.one).catch(() => undefined);
      case 'undo':
        return await this.#undo(op.run);
      default:
        op satisfies never;
    }
  }

  /** As `undo` of the prelude does it, for what fits one answer. */
  async #undo(run: string): Promise<void> {
    const kept = (await this.#call('run.kept', null, { run })) as { readonly step: number }[];
    for (const { step } of kept) await this.#call('run.undo', null, { run, step });
  }

  async #call(verb: string, name: string | null, args: Json): Promise<Json> {
    this.#made += 1;
    const call = this.#made;
    this.#calls.push({ call, verb, name, args });
    const { promise, resolve, reject } = Promise.withResolvers<Json>();
    this.#waiting.set(call, (outcome) => {
      if (outcome.ok) resolve(outcome.value);
      else reject(Object.assign(new Error(outcome.error.message), { code: outcome.error.code }));
    });
    return await promise;
  }

  #fail(error: unknown): void {
    const { code, message } = error as { readonly code: string; readonly message: string };
    this.#end ??= { ok: false, failure: { code, message, place: null, stack: '' } };
  }
}
