import { type RidLock, RidLocks } from './rid-locks.ts';
import { EngineHalt, StepLeft } from './saga-error.ts';
import type { ScriptCall, StepRunner } from './step-runner.ts';

interface Work {
  readonly call: ScriptCall;
  readonly locks: readonly RidLock[];
  readonly isWait: boolean;
}

/**
 * Runs the calls of one guest, as many at once as its runner allows, each as soon as nobody before it works on
 * what it needs. What it does not do: order outcomes. That is the record's.
 */
export class StepScheduler {
  readonly #runner: StepRunner;
  readonly #onChange: () => void;
  readonly #locks = new RidLocks();
  // Has its locks and waits for a place, in the order it got them.
  #runnable: Work[] = [];
  #runnableFrom = 0;
  #blocked = 0;
  #working = 0;
  // step → its end, which never rejects
  readonly #running = new Map<number, Promise<void>>();
  readonly #settled = new Set<number>();
  #isOpen = true;
  #failure: unknown;
  readonly #halted = Promise.withResolvers<void>();

  /** @param onChange called when a call ended, well or not */
  constructor(runner: StepRunner, onChange: () => void) {
    this.#runner = runner;
    this.#onChange = onChange;
  }

  /** Why a call ended without an outcome. */
  get failure(): unknown {
    return this.#failure;
  }

  /** Calls that are under way and do more than wait. */
  get working(): number {
    return this.#working;
  }

  get waiting(): number {
    return this.#running.size - this.#working;
  }

  /** Calls that are not begun. */
  get queued(): number {
    return this.#blocked + this.#runnable.length - this.#runnableFrom;
  }

  add(call: ScriptCall): void {
    const locks = this.#runner.locksOf?.(call) ?? [];
    const work = { call, locks, isWait: this.#runner.isWait?.(call) ?? false };
    this.#blocked += 1;
    this.#locks.take(locks, () => {
      this.#blocked -= 1;
      if (work.isWait && this.#isOpen) this.#start(work);
      else this.#runnable.push(work);
    });
    this.#startRunnable();
  }

  /** True once for a call whose outcome is recorded and may be delivered. */
  takeSettled(step: number): boolean {
    return this.#settled.delete(step);
  }

  /** Begins no other call. */
  close(): void {
    this.#isOpen = false;
  }

  /** After `close`: resolves once nothing is under way, or at once when the engine may not go on. */
  async whenIdle(): Promise<void> {
    await Promise.race([Promise.all(this.#running.values()), this.#halted.promise]);
  }

  #startRunnable(): void {
    while (this.#isOpen && this.#working < this.#runner.concurrencyMax) {
      const work = this.#runnable[this.#runnableFrom];
      if (work === undefined) break;
      this.#runnableFrom += 1;
      this.#start(work);
    }
    // Cut seldom enough that it costs nothing.
    if (this.#runnableFrom * 2 <= this.#runnable.length) return;
    this.#runnable = this.#runnable.slice(this.#runnableFrom);
    this.#runnableFrom = 0;
  }

  #start(work: Work): void {
    if (!work.isWait) this.#working += 1;
    this.#running.set(work.call.call, this.#run(work));
  }

  async #run({ call, locks, isWait }: Work): Promise<void> {
    try {
      await this.#runner.run(call);
      this.#settled.add(call.call);
    } catch (error) {
      this.#fail(error);
    }
    this.#running.delete(call.call);
    if (!isWait) this.#working -= 1;
    this.#locks.release(locks);
    this.#startRunnable();
    this.#onChange();
  }

  #fail(error: unknown): void {
    if (error instanceof StepLeft) return;
    this.close();
    if (this.#failure === undefined || error instanceof EngineHalt) this.#failure = error;
    if (error instanceof EngineHalt) this.#halted.resolve();
  }
}
