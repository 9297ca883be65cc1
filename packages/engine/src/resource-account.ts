import { HyphaError, type ResourceLimits, type Rid } from '@hypha/protocol';
import type { ResourceUse } from '@hypha/sal';

const FIELDS = ['milliCpus', 'memoryBytes', 'storageBytes'] as const;

/** What a run's declared resources take of `limits.resources`: each resource once, as last declared. */
export class ResourceAccount {
  readonly #limits: ResourceLimits;
  readonly #uses = new Map<Rid, ResourceUse>();
  #total: ResourceUse = { milliCpus: 0, memoryBytes: 0, storageBytes: 0 };

  constructor(limits: ResourceLimits) {
    this.#limits = limits;
  }

  /** Throws `E_RESOURCES` naming the first ceiling that `uses` would break, and by how much. */
  assertFits(rid: Rid, uses: ResourceUse, label: string): void {
    const total = this.#totalWith(rid, uses);
    for (const field of FIELDS) {
      const limit = this.#limits[field];
      const over = total[field] - limit;
      if (over <= 0) continue;
      throw new HyphaError(
        'E_RESOURCES',
        `with ${label} the deployment takes ${total[field]} ${field}, ${over} more than ` +
          `limits.resources.${field} of ${limit}`,
        { details: { field, limit, wanted: total[field], over } },
      );
    }
  }

  set(rid: Rid, uses: ResourceUse): void {
    this.#total = this.#totalWith(rid, uses);
    this.#uses.set(rid, uses);
  }

  #totalWith(rid: Rid, uses: ResourceUse): ResourceUse {
    const old = this.#uses.get(rid);
    return {
      milliCpus: this.#total.milliCpus - (old?.milliCpus ?? 0) + uses.milliCpus,
      memoryBytes: this.#total.memoryBytes - (old?.memoryBytes ?? 0) + uses.memoryBytes,
      storageBytes: this.#total.storageBytes - (old?.storageBytes ?? 0) + uses.storageBytes,
    };
  }
}
