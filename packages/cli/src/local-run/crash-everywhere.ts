import { canonicalJson, type JournalEvent } from '@hypha/protocol';
import type { SimulatedPlace } from './simulated-place.ts';
import {
  type SimulatedRun,
  type SimulationDeps,
  type SimulationEnd,
  simulateRun,
} from './simulated-run.ts';

/** A point at which a crash would have shown. */
export interface CrashDifference {
  readonly point: string;
  /** What was not the same, and how. */
  readonly differs: string;
}

export interface CrashReport {
  /** Points there are, and how many of them were tried. */
  readonly points: number;
  readonly tried: number;
  readonly differences: readonly CrashDifference[];
}

/** A long script is tried at so many points, spread evenly. */
export const CRASHES_MAX = 400;

/**
 * The run again for every point at which its runner can die, each in a copy of the place as it was before:
 * end, output, resources and effects have to be those of the run that nothing happened to.
 * @param before a copy of the place from before the run
 */
export async function crashEverywhere(
  run: SimulatedRun,
  deps: Omit<SimulationDeps, 'place' | 'onEvent'> & { readonly before: SimulatedPlace },
): Promise<CrashReport> {
  const { before, ...rest } = deps;
  const attempt = async (crashAt?: number) => {
    await using place = await before.copy();
    const end = await simulateRun(run, { ...rest, place, onEvent: () => undefined }, crashAt);
    return { end, seen: await inspect(end, place) };
  };
  const calm = await attempt();
  const points = calm.end.points.length;
  const stride = Math.max(1, Math.ceil(points / CRASHES_MAX));
  const differences: CrashDifference[] = [];
  let tried = 0;
  for (let at = 1; at <= points && !deps.cancel.aborted; at += stride) {
    const { seen } = await attempt(at);
    tried += 1;
    const differs = Object.keys(seen).filter((part) => seen[part] !== calm.seen[part]);
    if (differs.length === 0) continue;
    const shown = differs.map(
      (part) => `${part} ${short(seen[part])}, not ${short(calm.seen[part])}`,
    );
    differences.push({ point: calm.end.points[at - 1] ?? '', differs: shown.join('; ') });
  }
  return { points, tried, differences };
}

/** All that an operator could see of it, as texts to compare. */
async function inspect(
  { events, desired }: SimulationEnd,
  place: SimulatedPlace,
): Promise<Record<string, string>> {
  const finished = bodyOf(events, 'finished');
  const problem = finished?.problem as { code?: string; detail?: string } | null | undefined;
  const outcomes = events
    .map(({ body }) => body)
    .filter((body) => body.type === 'step-result' || body.type === 'step-error')
    // Steps that were under way together may end in another order.
    .sort((a, b) => a.step - b.step)
    .map((body) => (body.type === 'step-result' ? body.result : body.error));
  return {
    state: finished?.state ?? 'none',
    problem: problem === null ? 'none' : `${problem?.code}: ${problem?.detail}`,
    output: bodyOf(events, 'committed')?.output ?? 'none',
    leftovers: canonicalJson(finished?.leftovers ?? []),
    // Of a run that failed, an outcome nobody needs any more may be lost.
    outcomes: finished?.state === 'succeeded' ? canonicalJson(outcomes) : 'none',
    declared: canonicalJson(desired === undefined ? null : [...desired]),
    resources: canonicalJson(await place.snapshot()),
    effects: String(place.changes),
  };
}

function short(text = ''): string {
  return text.length <= SHOWN_CHARS_MAX ? text : `${text.slice(0, SHOWN_CHARS_MAX)}…`;
}

const SHOWN_CHARS_MAX = 160;

function bodyOf<T extends JournalEvent['body']['type']>(events: readonly JournalEvent[], type: T) {
  return events
    .map(({ body }) => body)
    .find((body): body is Extract<JournalEvent['body'], { type: T }> => body.type === type);
}
