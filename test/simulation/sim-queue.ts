import type { SeededRandom } from '@hypha/testkit';

export interface SimJob {
  readonly run: string;
  readonly epoch: number;
}

interface Entry {
  readonly job: SimJob;
  /** Runner that has it. */
  holder: string | undefined;
}

/**
 * What BullMQ promises, and no more: a job is known by its id and added once while it is there; it goes to one
 * runner at a time, again when that runner stalled; everything can be lost, and anybody can add anything.
 */
export class SimQueue {
  #jobs = new Map<string, Entry>();
  readonly #waiting: { readonly runner: string; readonly take: (job: SimJob) => void }[] = [];
  readonly #random: SeededRandom;
  isUp = true;

  constructor(random: SeededRandom) {
    this.#random = random;
  }

  async add(jobs: readonly SimJob[]): Promise<boolean> {
    if (!this.isUp) return jobs.length === 0;
    for (const job of jobs) this.#add(job);
    return true;
  }

  async reset(jobs: readonly SimJob[]): Promise<void> {
    if (!this.isUp) return;
    for (const job of jobs) this.#jobs.delete(idOf(job));
  }

  wipe(): void {
    this.#jobs.clear();
  }

  /** Resolves with a job, or never: the runner died or there is none. */
  take(runner: string): Promise<SimJob> {
    const { promise, resolve } = Promise.withResolvers<SimJob>();
    this.#waiting.push({ runner, take: resolve });
    this.#handOut();
    return promise;
  }

  complete(job: SimJob): void {
    this.#jobs.delete(idOf(job));
  }

  /** The stalled check: what this runner has is given to others, and it gets no more. */
  abandon(runner: string): void {
    const left = this.#waiting.filter((each) => each.runner !== runner);
    this.#waiting.splice(0, this.#waiting.length, ...left);
    for (const entry of this.#jobs.values()) if (entry.holder === runner) entry.holder = undefined;
    this.#handOut();
  }

  /** A job a second time, under the hand of whoever has it. */
  duplicate(): void {
    const entries = [...this.#jobs.values()];
    if (entries.length > 0) this.#random.pick(entries).holder = undefined;
    this.#handOut();
  }

  /** One that nobody here has made. */
  forge(job: SimJob): void {
    this.#add(job);
  }

  #add(job: SimJob): void {
    if (!this.#jobs.has(idOf(job))) this.#jobs.set(idOf(job), { job, holder: undefined });
    this.#handOut();
  }

  #handOut(): void {
    if (!this.isUp) return;
    for (const entry of this.#jobs.values()) {
      if (entry.holder !== undefined) continue;
      if (this.#waiting.length === 0) return;
      const [next] = this.#waiting.splice(this.#random.int(0, this.#waiting.length - 1), 1);
      if (next === undefined) return;
      entry.holder = next.runner;
      next.take(entry.job);
    }
  }
}

function idOf({ run, epoch }: SimJob): string {
  return `${run}-${epoch}`;
}
