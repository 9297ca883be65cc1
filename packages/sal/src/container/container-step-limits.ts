/** Bounds of the steps on containers that the engine is told; what is inside is bounded for itself. */
export const CONTAINER_STEP_LIMITS = {
  /** `container.ensure` without its wait for health: the old one stopped, the new one made and started. */
  startMsMax: 180_000,
  /** `container.exec` beyond the command's own timeout: to start it, and to end it. */
  execGraceMs: 60_000,
} as const;
