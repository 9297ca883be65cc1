import { HyphaError, type ResourceLimits } from '@hypha/protocol';

/** `committed`, `kept` (by a failed run signed `onFailure: "keep"`), or an unfinished run. */
export type ReservationSource = string;

export interface Reservation {
  readonly realm: string;
  readonly deployment: string;
  readonly source: ReservationSource;
  readonly limits: ResourceLimits;
}

export const NO_RESOURCES: ResourceLimits = { milliCpus: 0, memoryBytes: 0, storageBytes: 0 };
const COMPONENTS = ['milliCpus', 'memoryBytes', 'storageBytes'] as const;

/**
 * What this node has promised to whom. A deployment holds the largest of its sources: what is committed now
 * and the ceiling of the run that will replace it are never needed side by side. Kept in memory, so that
 * the check and the reservation are one step; the rows in the store bring it back after a restart.
 */
export class ReservationBook {
  // deployment → source → limits
  readonly #held = new Map<string, Map<ReservationSource, ResourceLimits>>();
  #total = NO_RESOURCES;

  constructor(stored: readonly Reservation[]) {
    for (const reservation of stored) this.set(reservation);
  }

  /** Throws `E_CAPACITY` naming what is short. What a deployment holds already is never refused to it. */
  reserve(wanted: Reservation, capacity: ResourceLimits): void {
    const key = keyOf(wanted);
    const own = largestOf(this.#held.get(key)?.values() ?? []);
    const total = this.total();
    for (const component of COMPONENTS) {
      const asked = wanted.limits[component];
      const free = capacity[component] - (total[component] - own[component]);
      if (asked > own[component] && asked > free) {
        throw new HyphaError(
          'E_CAPACITY',
          `cannot reserve ${asked} ${component} for ${wanted.realm}/${wanted.deployment}: ${free} free`,
          { where: { path: `limits.resources.${component}` }, details: { asked, free } },
        );
      }
    }
    this.set(wanted);
  }

  set({ realm, deployment, source, limits }: Reservation): void {
    this.#change({ realm, deployment }, (sources) => sources.set(source, limits));
  }

  drop({ realm, deployment, source }: Omit<Reservation, 'limits'>): void {
    this.#change({ realm, deployment }, (sources) => sources.delete(source));
  }

  find({ realm, deployment, source }: Omit<Reservation, 'limits'>): ResourceLimits | undefined {
    return this.#held.get(keyOf({ realm, deployment }))?.get(source);
  }

  total(): ResourceLimits {
    return this.#total;
  }

  #change(
    of: { readonly realm: string; readonly deployment: string },
    change: (sources: Map<ReservationSource, ResourceLimits>) => void,
  ): void {
    const key = keyOf(of);
    const sources = this.#held.get(key) ?? new Map<ReservationSource, ResourceLimits>();
    const before = largestOf(sources.values());
    change(sources);
    if (sources.size === 0) this.#held.delete(key);
    else this.#held.set(key, sources);
    const after = largestOf(sources.values());
    this.#total = combine(this.#total, combine(after, before, subtract), add);
  }
}

const add = (a: number, b: number) => a + b;
const subtract = (a: number, b: number) => a - b;

export function sumOf(limits: readonly ResourceLimits[]): ResourceLimits {
  return limits.reduce((left, right) => combine(left, right, add), NO_RESOURCES);
}

export function largestOf(limits: Iterable<ResourceLimits>): ResourceLimits {
  let largest = NO_RESOURCES;
  for (const each of limits) largest = combine(largest, each, Math.max);
  return largest;
}

function combine(
  left: ResourceLimits,
  right: ResourceLimits,
  each: (a: number, b: number) => number,
): ResourceLimits {
  return {
    milliCpus: each(left.milliCpus, right.milliCpus),
    memoryBytes: each(left.memoryBytes, right.memoryBytes),
    storageBytes: each(left.storageBytes, right.storageBytes),
  };
}

function keyOf({ realm, deployment }: { realm: string; deployment: string }): string {
  return `${realm}/${deployment}`;
}
