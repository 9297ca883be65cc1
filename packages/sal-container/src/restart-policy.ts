/** When a container that ended is started again. Pure. */
import { createHash } from 'node:crypto';
import type { ContainerSpec } from '@hypha/sal';
import { CONTAINER_LIMITS } from './container-limits.ts';
import type { ExitRecord, RunRecord } from './instance-store.ts';

export type RestartDecision =
  | { readonly action: 'start'; readonly restarts: number }
  | { readonly action: 'wait'; readonly untilMs: number; readonly restarts: number }
  /** It ran, and that was that. */
  | { readonly action: 'rest' };

/**
 * @param run undefined: it was never started
 * @param exit `pending`: it ended just now and its exit code is being written; `unseen`: nobody saw its
 * end, as after a loss of power
 */
export function decideRestart(input: {
  readonly policy: ContainerSpec['restart'];
  readonly instance: string;
  readonly run: RunRecord | undefined;
  readonly exit: ExitRecord | 'pending' | 'unseen';
  readonly nowMs: number;
}): RestartDecision {
  const { policy, run, exit, nowMs } = input;
  if (run === undefined) return { action: 'start', restarts: 0 };
  if (policy === 'never') return { action: 'rest' };
  if (run.halted) return { action: 'start', restarts: 0 };
  if (exit === 'pending') return { action: 'wait', untilMs: nowMs, restarts: run.restarts };
  if (policy === 'on-failure' && exit !== 'unseen' && exit.code === 0) return { action: 'rest' };
  const endedAtMs = exit === 'unseen' ? run.startedAtMs : exit.atMs;
  const isForgiven = endedAtMs - run.startedAtMs >= CONTAINER_LIMITS.restartForgivenMs;
  const restarts = isForgiven ? 1 : run.restarts + 1;
  const untilMs = endedAtMs + restartDelayMs(input.instance, restarts);
  // A clock that was set back must not keep a container down for longer than the longest delay.
  const isDue = nowMs >= untilMs || nowMs < endedAtMs - CONTAINER_LIMITS.restartMsMax;
  return isDue ? { action: 'start', restarts } : { action: 'wait', untilMs, restarts };
}

/** Doubles, and differs by up to a quarter between containers that fail together. */
function restartDelayMs(instance: string, restarts: number): number {
  const { restartMsMin, restartMsMax } = CONTAINER_LIMITS;
  const delayMs = Math.min(restartMsMin * 2 ** Math.min(restarts - 1, 30), restartMsMax);
  const [byte = 0] = createHash('sha256').update(`${instance}/${restarts}`).digest();
  return Math.round(delayMs * (1 + byte / 255 / 4));
}
