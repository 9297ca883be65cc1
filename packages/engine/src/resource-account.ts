import { HyphaError, type ResourceLimits, type Rid } from '@hypha/protocol';
import { NO_USE, type ResourceUse } from '@hypha/sal';

const FIELDS = ['milliCpus', 'memoryBytes', 'storageBytes'] as const;

/**
 * What a run's declared resources take of `limits.resources`: each resource once, as last declared. A declaration
 * that is under way takes the larger of what it was and what it will be, so that those that run at once stay
 * within the ceiling together.
 */
export class ResourceAccount {
  readonly #limits: ResourceLimits;
  readonly #declared = new Map<Rid, ResourceUse>();
  // What counts now: of the declared, or more while a declaration is under way.
  readonly #taken = new Map<Rid, ResourceUse>();
  #total: ResourceUse = NO_USE;

  constructor(limits: ResourceLimits) {
    this.#limits = limits;
  }

  /**
   * Takes what a declaration needs while it is under way; `set` or `release` ends that. Throws `E_RESOURCES` naming
   * the first ceiling that it would break, and by how much.
   */
  reserve(rid: Rid, uses: ResourceUse, label: string): void {
    const wanted = eachField((field) =>
      Math.max(uses[field], this.#declared.get(rid)?.[field] ?? 0),
    );
    this.#assertFits(this.#totalWith(rid, wanted), label);
    this.#take(rid, wanted);
  }

  /** What the resource takes from now on, whether it fits or not. */
  set(rid: Rid, uses: ResourceUse): void {
    this.#declared.set(rid, uses);
    this.#take(rid, uses);
  }

  /** The declaration came to nothing: the resource takes what it took before. */
  release(rid: Rid): void {
    this.#take(rid, this.#declared.get(rid) ?? NO_USE);
  }

  #take(rid: Rid, uses: ResourceUse): void {
    this.#total = this.#totalWith(rid, uses);
    this.#taken.set(rid, uses);
  }

  #assertFits(total: ResourceUse, label: string): void {
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

  #totalWith(rid: Rid, uses: ResourceUse): ResourceUse {
    const taken = this.#taken.get(rid) ?? NO_USE;
    return eachField((field) => this.#total[field] - taken[field] + uses[field]);
  }
}

function eachField(amount: (field: keyof ResourceUse) => number): ResourceUse {
  return {
    milliCpus: amount('milliCpus'),
    memoryBytes: amount('memoryBytes'),
    storageBytes: amount('storageBytes'),
  };
}
