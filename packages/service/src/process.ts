/**
 * The part of this package that a process without an HTTP server needs (`@hypha/service/process`): a runner
 * saves the memory of the rest.
 */
export { systemClock, type WallClock } from './clock.ts';
export { ConfigError, EXIT_BAD_CONFIG, loadConfig } from './configuration.ts';
export { createLogger, LOG_LEVELS, type Logger, type LogLevel } from './logger.ts';
export { runService, type ServiceContext } from './run-service.ts';
