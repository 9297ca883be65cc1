export { SANDBOX_LIMITS } from './limits.ts';
export type { SandboxGuest } from './sandbox-guest.ts';
export { SandboxPool } from './sandbox-pool.ts';
