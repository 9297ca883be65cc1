import type { Clock } from './clock.ts';
import type { LedgerFollower } from './ledger-follower.ts';
import { COORDINATOR_LIMITS as LIMITS } from './limits.ts';
import type { Placement } from './placement.ts';

const NEVER = new AbortController().signal;

/**
 * What a node has free is known from its last report, and a run holds less once it has ended. A node
 * reports soon after, so for a moment "no capacity" is not believed: placement looks again. Kept in
 * memory only, since a coordinator that starts anew has no reason to doubt what it reads.
 */
export class SettlingNodes {
  readonly #deps: { readonly follower: LedgerFollower; readonly clock: Clock };
  /** node id → when a run of it was last heard to end, by our clock. */
  readonly #endedAt = new Map<string, number>();
  #waiting = 0;

  constructor(deps: { readonly follower: LedgerFollower; readonly clock: Clock }) {
    this.#deps = deps;
  }

  /** A run of this node holds less than before. */
  runEnded(node: string): void {
    this.#endedAt.set(node, this.#deps.clock.nowMs());
  }

  /** The first placement of `count` nodes, or the one that is there when no more can be hoped for. */
  async place(count: number, judge: () => Promise<Placement>): Promise<Placement> {
    const placement = await judge();
    if (!this.#mayImprove(placement, count) || this.#waiting >= LIMITS.settlingWaitsMax) {
      return placement;
    }
    this.#waiting++;
    try {
      return await this.#placeLater(count, judge);
    } finally {
      this.#waiting--;
    }
  }

  async #placeLater(count: number, judge: () => Promise<Placement>): Promise<Placement> {
    const { follower, clock } = this.#deps;
    for (;;) {
      await clock.sleep(LIMITS.settlingLookMs, NEVER);
      await follower.freshen(LIMITS.settlingLookMs);
      const placement = await judge();
      if (!this.#mayImprove(placement, count)) return placement;
    }
  }

  #mayImprove({ chosen, refused }: Placement, count: number): boolean {
    if (chosen.length >= count) return false;
    const since = this.#deps.clock.nowMs() - LIMITS.settlingMsMax;
    return refused.some(
      ({ id, code }) => code === 'E_CAPACITY' && (this.#endedAt.get(id) ?? 0) > since,
    );
  }
}
