import type { Guest } from '@hypha/engine';
import type { GuestOutcome, GuestTurn } from '@hypha/protocol';

export interface GuestWatch {
  /** Every turn, from its request to its answer. */
  readonly during: <T>(work: () => Promise<T>) => Promise<T>;
  /** Before an outcome is delivered. */
  readonly onOutcome?: (outcome: GuestOutcome) => Promise<void>;
  /** Before the engine sees what the script did. */
  readonly onTurn?: (turn: GuestTurn) => void;
}

/** A guest that tells of its turns. */
export function watchGuest(guest: Guest, { during, onOutcome, onTurn }: GuestWatch): Guest {
  const told = async (work: () => Promise<GuestTurn>): Promise<GuestTurn> => {
    const turn = await during(work);
    onTurn?.(turn);
    return turn;
  };
  return {
    start: (program, signal) => told(() => guest.start(program, signal)),
    deliver: async (outcome, signal) => {
      await onOutcome?.(outcome);
      return await told(() => guest.deliver(outcome, signal));
    },
    close: () => guest.close(),
  };
}
