import { EFFECTS, type Effects } from '../effects.ts';

/** Stands for the death of the process: nothing of it does anything any more. */
export class Interruption extends Error {
  override readonly name = 'Interruption';
}

/** Effects of a process that dies right after its `limit`-th effect, before it can look at the result. */
export function interruptedEffects(limit: number, effects: Effects = EFFECTS): InterruptedEffects {
  return new InterruptedEffects(limit, effects);
}

export class InterruptedEffects implements Effects {
  readonly #limit: number;
  readonly #effects: Effects;
  #done = 0;

  constructor(limit: number, effects: Effects) {
    this.#limit = limit;
    this.#effects = effects;
  }

  /** True when the process died: otherwise there were fewer effects than the limit. */
  get isDead(): boolean {
    return this.#done >= this.#limit;
  }

  readonly run: Effects['run'] = (command) => this.#perform(() => this.#effects.run(command));

  change<T>(change: () => Promise<T>): Promise<T> {
    return this.#perform(() => this.#effects.change(change));
  }

  async #perform<T>(effect: () => Promise<T>): Promise<T> {
    if (this.isDead) throw new Interruption('after the end');
    const [outcome] = await Promise.allSettled([effect()]);
    this.#done++;
    if (this.isDead) throw new Interruption(`after effect ${this.#done}`);
    if (outcome.status === 'rejected') throw outcome.reason;
    return outcome.value;
  }
}

/** More effects than this in one call is a loop. */
const EFFECTS_MAX = 500;

/**
 * Calls `attempt` with effects that end after the first, the second … effect, until one goes through
 * uninterrupted. Returns how many crash points there were.
 */
export async function forEachCrashPoint(
  attempt: (effects: InterruptedEffects, crashPoint: string) => Promise<void>,
): Promise<number> {
  for (let limit = 1; limit <= EFFECTS_MAX; limit++) {
    const effects = interruptedEffects(limit);
    await attempt(effects, `after effect ${limit}`);
    if (!effects.isDead) return limit - 1;
  }
  throw new Error(`still not done after ${EFFECTS_MAX} effects`);
}

/** Runs `work` until it ends or dies; any other failure is thrown. */
export async function untilDeath<T>(
  effects: InterruptedEffects,
  work: () => Promise<T>,
): Promise<T | undefined> {
  try {
    return await work();
  } catch (error) {
    if (effects.isDead) return undefined;
    throw error;
  }
}
