export { readConfig, SupervisorConfig } from './config.ts';
export { Supervisor, type SupervisorParts } from './supervisor.ts';
