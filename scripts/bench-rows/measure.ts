/** One row of the bench file (design §13): these fields and no others. */
export interface Row {
  readonly name: string;
  readonly p50Ms?: number;
  readonly p99Ms?: number;
  readonly perSecond?: number;
  readonly memoryMiB?: number;
  readonly floor?: { readonly name: string; readonly p50Ms?: number; readonly perSecond?: number };
  /** Ours over the floor's: for times, above 1 is slower; for rates, below 1 is slower. */
  readonly ratio?: number;
}

/** A budget and how it is measured. */
export interface Budget {
  /** As the design has it. */
  readonly goal: string;
  readonly isMet: (row: Row) => boolean;
  /** Why this machine cannot measure it; undefined when it can. */
  readonly lack?: () => string | undefined;
  /**
   * @param own takes everything that has to be taken away again, before it is waited for: it is disposed of
   *   at the end, also when that is a Ctrl-C in the middle
   */
  readonly measure: (own: AsyncDisposableStack) => Promise<Row>;
}

/** The smallest sample that at least this share of all samples does not exceed. */
export function percentile(samples: readonly number[], share: number): number {
  const sorted = [...samples].sort((a, b) => a - b);
  const value = sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)];
  if (value === undefined) throw new Error('there are no samples');
  return round(value);
}

/** Two digits after the point; more only where the value is below 0.1. */
export function round(value: number): number {
  return Math.abs(value) < 0.1 ? Number(value.toPrecision(2)) : Math.round(value * 100) / 100;
}

export function timesRow(
  name: string,
  samples: readonly number[],
  floor: { readonly name: string; readonly samples: readonly number[] },
): Row {
  const p50Ms = percentile(samples, 0.5);
  const floorMs = percentile(floor.samples, 0.5);
  return {
    name,
    p50Ms,
    p99Ms: percentile(samples, 0.99),
    floor: { name: floor.name, p50Ms: floorMs },
    ratio: round(p50Ms / floorMs),
  };
}

/** True when the median is above the floor's by this many milliseconds at most. */
export function isWithinFloor({ p50Ms, floor }: Row, extraMs: number): boolean {
  return (p50Ms ?? Number.POSITIVE_INFINITY) <= (floor?.p50Ms ?? 0) + extraMs;
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
