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
    const key = keyOf({ realm, deployment });
    const sources = this.#held.get(key) ?? new Map<ReservationSource, ResourceLimits>();
    this.#held.set(key, sources.set(source, limits));
  }

  drop({ realm, deployment, source }: Omit<Reservation, 'limits'>): void {
    const key = keyOf({ realm, deployment });
    const sources = this.#held.get(key);
    sources?.delete(source);
    if (sources?.size === 0) this.#held.delete(key);
  }

  find({ realm, deployment, source }: Omit<Reservation, 'limits'>): ResourceLimits | undefined {
    return this.#held.get(keyOf({ realm, deployment }))?.get(source);
  }

  total(): ResourceLimits {
    let total = NO_RESOURCES;
    for (const sources of this.#held.values()) total = sumOf([total, largestOf(sources.values())]);
    return total;
  }
}

export function sumOf(limits: readonly ResourceLimits[]): ResourceLimits {
  return merge(limits, (a, b) => a + b);
}

export function largestOf(limits: Iterable<ResourceLimits>): ResourceLimits {
  return merge([...limits], Math.max);
}

function merge(
  limits: readonly ResourceLimits[],
  combine: (a: number, b: number) => number,
): ResourceLimits {
  return limits.reduce(
    (left, right) => ({
      milliCpus: combine(left.milliCpus, right.milliCpus),
      memoryBytes: combine(left.memoryBytes, right.memoryBytes),
      storageBytes: combine(left.storageBytes, right.storageBytes),
    }),
    NO_RESOURCES,
  );
}

function keyOf({ realm, deployment }: { realm: string; deployment: string }): string {
  return `${realm}/${deployment}`;
}
