import { COORDINATOR_LIMITS as LIMITS } from './limits.ts';

/**
 * When a message that was just sent is due again, epoch milliseconds. The delay doubles with every
 * attempt up to a ceiling; half of it is jitter, so that a thousand nodes that came back together are
 * not served together for ever.
 *
 * @param attempts sends so far, this one included
 * @param random in [0, 1)
 */
export function nextSendAt(nowMs: number, attempts: number, random: number): number {
  const doubled = LIMITS.resendDelayMsMin * 2 ** Math.min(attempts - 1, 20);
  const delay = Math.min(doubled, LIMITS.resendDelayMsMax);
  return nowMs + Math.round(delay * (0.5 + random / 2));
}

/**
 * When a message nobody answered is given up: the envelope cannot be admitted after `exp`, and the grace
 * is for an answer on its way.
 */
export function expiresAt(expSeconds: number, graceMs: number): number {
  return expSeconds * 1000 + graceMs;
}
