/** Why a thing is left over that a failure was signed to keep (`onFailure: keep`, design §10): as receipts have it. */
export const KEPT_REASON = 'kept: signed with onFailure keep';

/** True for what a failed run left on purpose, which can be undone later. */
export function isKeptLeftover({ reason }: { readonly reason: string }): boolean {
  return reason === KEPT_REASON;
}
