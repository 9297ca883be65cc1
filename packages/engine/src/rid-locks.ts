/** What a step has to have of a resource: alone, or together with others that only look at it. */
export interface RidLock {
  readonly rid: string;
  readonly isExclusive: boolean;
}

interface Claim {
  readonly isExclusive: boolean;
  readonly holder: Holder;
}

interface Holder {
  missing: number;
  readonly onHeld: () => void;
}

interface Held {
  isExclusive: boolean;
  count: number;
  readonly waiting: Claim[];
}

/**
 * Who may work on which resource of a run. First come, first served on every resource, and a step asks for all
 * that it needs at once: so nobody waits in a circle, and calls on one resource take effect in the order the
 * script made them.
 */
export class RidLocks {
  // rid → who holds it and who waits; nobody: no entry
  readonly #held = new Map<string, Held>();

  /** Calls back once all of them are held, perhaps at once. At most one lock on a `rid`. */
  take(locks: readonly RidLock[], onHeld: () => void): void {
    const holder = { missing: locks.length, onHeld };
    for (const { rid, isExclusive } of locks) {
      const held = this.#held.get(rid);
      if (held === undefined) {
        this.#held.set(rid, { isExclusive, count: 1, waiting: [] });
        holder.missing -= 1;
        continue;
      }
      held.waiting.push({ isExclusive, holder });
      // Nobody who waited before could be let in, so it is this one or none.
      holder.missing -= admit(held).length;
    }
    if (holder.missing === 0) onHeld();
  }

  /** Of a step that held all of them. */
  release(locks: readonly RidLock[]): void {
    const granted: Holder[] = [];
    for (const { rid } of locks) {
      const held = this.#held.get(rid);
      if (held === undefined) continue;
      held.count -= 1;
      granted.push(...admit(held));
      if (held.count === 0) this.#held.delete(rid);
    }
    for (const holder of granted) {
      holder.missing -= 1;
      if (holder.missing === 0) holder.onHeld();
    }
  }
}

/** Lets in who waits first, and those after it that may hold it together. */
function admit(held: Held): Holder[] {
  const granted: Holder[] = [];
  for (let [first] = held.waiting; first !== undefined; [first] = held.waiting) {
    const mayJoin = held.count === 0 || (!held.isExclusive && !first.isExclusive);
    if (!mayJoin) break;
    held.waiting.shift();
    held.count += 1;
    held.isExclusive = first.isExclusive;
    granted.push(first.holder);
  }
  return granted;
}
