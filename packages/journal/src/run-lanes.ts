import type { RunEntry } from './run-entry.ts';

interface Lane {
  readonly realm: string;
  readonly deployment: string;
  readonly runs: readonly RunEntry[];
}

/** Unfinished runs by deployment: the runs of one deployment take turns (design §8). In memory. */
export class RunLanes {
  // deployment → its unfinished runs, oldest first
  readonly #lanes = new Map<string, RunEntry[]>();
  // run → its deployment's key
  readonly #keys = new Map<string, string>();

  constructor(unfinished: readonly RunEntry[]) {
    for (const entry of unfinished) this.update(entry);
  }

  get size(): number {
    return this.#keys.size;
  }

  /** Adds a run, or replaces what is known of it. */
  update(entry: RunEntry): void {
    const key = keyOf(entry);
    const others = (this.#lanes.get(key) ?? []).filter(({ run }) => run !== entry.run);
    const lane = [...others, entry].sort((a, b) => a.position - b.position);
    this.#lanes.set(key, lane);
    this.#keys.set(entry.run, key);
  }

  remove(entry: RunEntry): void {
    const key = keyOf(entry);
    const rest = (this.#lanes.get(key) ?? []).filter(({ run }) => run !== entry.run);
    if (rest.length === 0) this.#lanes.delete(key);
    else this.#lanes.set(key, rest);
    this.#keys.delete(entry.run);
  }

  find(run: string): RunEntry | undefined {
    return this.#laneOf(run)?.find((entry) => entry.run === run);
  }

  isFirst(run: string): boolean {
    return this.#laneOf(run)?.[0]?.run === run;
  }

  list(): Lane[] {
    return [...this.#lanes.values()].flatMap((runs) => {
      const [first] = runs;
      if (first === undefined) return [];
      return [{ realm: first.realm, deployment: first.deployment, runs }];
    });
  }

  #laneOf(run: string): readonly RunEntry[] | undefined {
    const key = this.#keys.get(run);
    return key === undefined ? undefined : this.#lanes.get(key);
  }
}

function keyOf({ realm, deployment }: { realm: string; deployment: string }): string {
  return `${realm}/${deployment}`;
}
