import { EFFECTS, type Effects } from '@hypha/sal';
import type { CrashWorld } from './crash-world.ts';

/** Looks at a deployment from outside after each effect, in all lives of its runner: what came, what went. */
export class WatchedEffects {
  readonly unwatched = EFFECTS;
  readonly #world: CrashWorld;
  readonly #deployment: string;
  readonly #made = new Map<string, number>();
  readonly #unmade = new Map<string, number>();
  #there: readonly string[] = [];
  #once: readonly string[] = [];
  #looks: Promise<void> = Promise.resolve();

  constructor(world: CrashWorld, deployment: string) {
    this.#world = world;
    this.#deployment = deployment;
  }

  /** The look is part of the effect, so that it is taken also when its caller dies meanwhile. */
  over(effects: Effects): Effects {
    return {
      run: (command) => effects.change(async () => await this.#then(() => EFFECTS.run(command))),
      change: (change) => effects.change(async () => await this.#then(change)),
    };
  }

  async seen() {
    await this.#look();
    const { made, unmade } = { made: this.#made, unmade: this.#unmade };
    const once = this.#once;
    return { made: Object.fromEntries(made), unmade: Object.fromEntries(unmade), once };
  }

  async #then<T>(effect: () => Promise<T>): Promise<T> {
    try {
      return await effect();
    } finally {
      await this.#look();
    }
  }

  /** One after another, so that nothing is counted twice. */
  async #look(): Promise<void> {
    const look = this.#looks.then(async () => {
      const there = await this.#world.list(this.#deployment);
      const gone = this.#there.filter((name) => !there.includes(name));
      for (const name of gone) this.#unmade.set(name, (this.#unmade.get(name) ?? 0) + 1);
      const come = there.filter((name) => !this.#there.includes(name));
      for (const name of come) this.#made.set(name, (this.#made.get(name) ?? 0) + 1);
      this.#there = there;
      const once = await this.#world.readOnce(this.#deployment);
      if (once.length > this.#once.length) this.#once = once;
    });
    this.#looks = look.catch(() => undefined);
    await look;
  }
}
