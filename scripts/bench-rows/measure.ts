/** One row of the bench file (design §13). */
export interface Row {
  readonly name: string;
  readonly p50Ms?: number;
  readonly p99Ms?: number;
  readonly perSecond?: number;
  readonly memoryMiB?: number;
  readonly cpuPercent?: number;
  readonly floor?: { readonly name: string; readonly p50Ms?: number; readonly perSecond?: number };
  /** Ours over the floor's: times above 1 are slower, rates below 1 are slower. */
  readonly ratio?: number;
}

export function percentile(samples: readonly number[], share: number): number {
  const sorted = [...samples].sort((a, b) => a - b);
  const index = Math.min(sorted.length - 1, Math.floor(sorted.length * share));
  return round(sorted[index] ?? Number.NaN);
}

export function round(value: number): number {
  return Math.round(value * 100) / 100;
}

/** Milliseconds of each call, one after another, after a few that are not counted. */
export async function sample(
  count: number,
  task: (index: number) => Promise<unknown>,
  warmUp = 5,
): Promise<number[]> {
  const samples: number[] = [];
  for (let index = 0; index < count + warmUp; index++) {
    const start = performance.now();
    await task(index);
    if (index >= warmUp) samples.push(performance.now() - start);
  }
  return samples;
}
