import { setTimeout as sleep } from 'node:timers/promises';

const POLL_MS_MIN = 2;
const POLL_MS_MAX = 100;

/**
 * The first truthy value of the condition. One that throws is not met yet; what it threw last is the cause
 * when time runs out.
 */
export async function waitFor<T>(
  condition: () => T | Promise<T>,
  options: { readonly timeoutMs?: number; readonly what?: string } = {},
): Promise<Exclude<T, undefined | null | false | 0 | ''>> {
  const { timeoutMs = 10_000, what = String(condition) } = options;
  const deadline = performance.now() + timeoutMs;
  let cause: unknown;
  for (let pollMs = POLL_MS_MIN; ; pollMs = Math.min(POLL_MS_MAX, pollMs * 1.5)) {
    try {
      const value = await condition();
      cause = undefined;
      if (value) return value as Exclude<T, undefined | null | false | 0 | ''>; // checked just now
    } catch (error) {
      cause = error;
    }
    if (performance.now() >= deadline) {
      throw new Error(`waited ${timeoutMs} ms in vain for ${what}`, { cause });
    }
    await sleep(Math.min(pollMs, Math.max(1, deadline - performance.now())));
  }
}
