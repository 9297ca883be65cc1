/**
 * Why a signal of the engine's own is aborted once nobody waits for anything any more. Without a reason every abort
 * makes an error, stack and all, and there are several to a step.
 */
export const OVER = Symbol('over');
