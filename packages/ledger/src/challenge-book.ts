import { randomBytes } from 'node:crypto';
import { HyphaError } from '@hypha/protocol';
import { LEDGER_LIMITS } from './ledger-limits.ts';

/**
 * Challenges that wait for an enrolment. In memory only: after a restart a node asks for another, and none
 * that was spent can come back.
 */
export class ChallengeBook {
  readonly #nowMs: () => number;
  /** Challenge → when it expires. In the order they were given out, which is that of expiry. */
  readonly #open = new Map<string, number>();

  constructor(nowMs: () => number) {
    this.#nowMs = nowMs;
  }

  issue(): { readonly challenge: string; readonly expiresAt: number } {
    this.#forget();
    if (this.#open.size >= LEDGER_LIMITS.challenges) {
      throw new HyphaError('E_RATE', `${this.#open.size} challenges are out`);
    }
    const challenge = randomBytes(16).toString('base64url');
    const expiresAt = this.#nowMs() + LEDGER_LIMITS.challengeMs;
    this.#open.set(challenge, expiresAt);
    return { challenge, expiresAt };
  }

  /** Throws `E_CHALLENGE` unless it was given out, is in time, and was not spent before. */
  spend(challenge: string): void {
    this.#forget();
    if (!this.#open.delete(challenge)) {
      throw new HyphaError('E_CHALLENGE', `challenge ${challenge} is not open`, {
        where: { path: 'challenge' },
      });
    }
  }

  /** Whether it is still to be spent. */
  isOpen(challenge: string): boolean {
    this.#forget();
    return this.#open.has(challenge);
  }

  #forget(): void {
    const now = this.#nowMs();
    for (const [challenge, expiresAt] of this.#open) {
      if (expiresAt > now) return;
      this.#open.delete(challenge);
    }
  }
}
