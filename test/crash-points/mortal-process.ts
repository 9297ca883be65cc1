import type { Clock, Guest } from '@hypha/engine';
import { EFFECTS, type Effects } from '@hypha/sal';

const NEVER = new Promise<never>(() => undefined);

/**
 * What an engine runs in: a process that dies when it is about to do one event more than it was given. An event is
 * an append to the journal or an effect of a SAL. The world after event k is the world before event k + 1, so N
 * events have N + 1 points to die at, and those are all there are before and after each. Dead, no port answers any
 * more; what was under way then may still end, as a command does whose caller is killed, but nobody hears of it.
 */
export class MortalProcess {
  readonly #eventsMax: number;
  readonly #diesAtEnd: boolean;
  readonly #ended = new AbortController();
  readonly #underWay = new Set<Promise<unknown>>();
  #events = 0;

  /** @param options.diesAtEnd after its last event, with all its work done and nobody told */
  constructor(options: { readonly eventsMax: number; readonly diesAtEnd: boolean }) {
    this.#eventsMax = options.eventsMax;
    this.#diesAtEnd = options.diesAtEnd;
  }

  get isDead(): boolean {
    return this.#ended.signal.aborted;
  }

  /** Resolves with `dead` once it is. */
  readonly died = new Promise<'dead'>((resolve) => {
    this.#ended.signal.addEventListener('abort', () => resolve('dead'));
  });

  readonly effects: Effects = {
    run: (command) => this.event(() => EFFECTS.run(command)),
    change: (change) => this.event(change),
  };

  /** Resolves when nothing it began is under way any more. */
  async fenced(): Promise<void> {
    await Promise.allSettled(this.#underWay);
  }

  /** Its work is done. */
  async end(): Promise<void> {
    if (this.#diesAtEnd) this.#ended.abort();
    if (this.isDead) await NEVER;
  }

  async event<T>(work: () => Promise<T>): Promise<T> {
    if (this.#events >= this.#eventsMax) this.#ended.abort();
    if (this.isDead) await NEVER;
    this.#events += 1;
    const underWay = work();
    this.#underWay.add(underWay);
    try {
      return await this.survive(underWay);
    } finally {
      this.#underWay.delete(underWay);
    }
  }

  /** The outcome, unless the process died meanwhile. */
  async survive<T>(work: Promise<T>): Promise<T> {
    const [outcome] = await Promise.allSettled([work]);
    if (this.isDead) await NEVER;
    if (outcome.status === 'rejected') throw outcome.reason;
    return outcome.value;
  }

  clock(clock: Clock): Clock {
    return {
      nowMs: () => clock.nowMs(),
      monotonicMs: () => clock.monotonicMs(),
      jitter: () => clock.jitter(),
      sleep: (ms, signal) =>
        this.survive(clock.sleep(ms, AbortSignal.any([signal, this.#ended.signal]))),
    };
  }

  guest(guest: Guest): Guest {
    return {
      start: (program, signal) => this.survive(guest.start(program, signal)),
      deliver: (outcome, signal) => this.survive(guest.deliver(outcome, signal)),
      close: () => this.survive(guest.close()),
    };
  }
}
