import type { BodyOf, JournalEvent } from '@hypha/protocol';
import { COORDINATOR_LIMITS as LIMITS } from './limits.ts';

/**
 * Steps of a run without an outcome → until when each sleeps, epoch milliseconds, or null for one that works. Null
 * in all: they are not known, which stays so.
 */
export type OpenSteps = Readonly<Record<string, number | null>> | null;

/** The steps that are open after these events. */
export function openStepsAfter(before: OpenSteps, events: readonly JournalEvent[]): OpenSteps {
  if (before === null) return null;
  const open = new Map(Object.entries(before));
  for (const { body, at } of events) {
    if (body.type === 'step-intent') open.set(String(body.step), sleepsUntil(body, at));
    if (body.type === 'step-result' || body.type === 'step-error') open.delete(String(body.step));
  }
  return open.size > LIMITS.openStepsMax ? null : Object.fromEntries(open);
}

/**
 * When a running run that only sleeps goes on, epoch milliseconds. That its node has let go of it no event says, but
 * nodes do so with every run that sleeps for more than moments.
 */
export function wakeTimeOf(open: OpenSteps): number | undefined {
  const times = Object.values(open ?? {});
  const known = times.filter((time) => time !== null);
  return known.length === 0 || known.length < times.length ? undefined : Math.min(...known);
}

/** Null also for a sleep of moments: a run that polls keeps its process. */
function sleepsUntil({ verb, before }: BodyOf<'step-intent'>, at: number): number | null {
  const { untilMs } = Object(before) as { readonly untilMs?: unknown };
  if (verb !== 'sleep' || typeof untilMs !== 'number' || !Number.isSafeInteger(untilMs))
    return null;
  return untilMs - at < LIMITS.shortSleepMs ? null : untilMs;
}
