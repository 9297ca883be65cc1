export type { Confinement } from './confinement.ts';
export { detectHosts } from './host-command.ts';
export { SANDBOX_LIMITS } from './limits.ts';
export type { SandboxGuest } from './sandbox-guest.ts';
export { SandboxPool } from './sandbox-pool.ts';
