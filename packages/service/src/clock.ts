/** Wall clock, epoch milliseconds. */
export interface WallClock {
  nowMs(): number;
}

export const systemClock: WallClock = { nowMs: () => Date.now() };
