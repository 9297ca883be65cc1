import { HELD_RUNS_MAX } from '@hypha/journal/client';
import { NodeId } from '@hypha/protocol';
import { SalConfig } from '@hypha/sal-host';
import { LOG_LEVELS, loadConfig } from '@hypha/service/process';
import { z } from 'zod';

/**
 * What the supervisor tells a runner it starts. Token and password belong in the environment or a file,
 * never in a flag, where every process of the machine could read them.
 */
export const RunnerConfig = z.strictObject({
  /** Name of this runner process; new for every process. */
  runner: z.string().regex(/^[a-z0-9][a-z0-9-]{0,62}$/),
  /** Proves to the supervisor that it started this process. */
  token: z.string().min(16).max(128),
  /** Path of the supervisor's journal socket. */
  journalSocket: z.string().min(1),
  /** Absolute path of a unix socket, or `redis://…`. */
  redis: z
    .string()
    .regex(/^(?:\/|redis:\/\/|rediss:\/\/)/, 'the absolute path of a socket, or redis://…'),
  /** Absent: the default user of Redis, or the one of the URL. */
  redisUser: z.string().min(1).max(64).optional(),
  redisPassword: z.string().min(1).max(128).optional(),
  /** Prefix of the queue's keys; with `{}` so that it stays in one slot of a cluster. */
  queuePrefix: z.string().min(1).max(200),
  queueName: z.string().min(1).max(100).default('runs'),
  node: NodeId,
  /** What the supervisor's own `openSals` answered: a runner opens the same as a guest. */
  sals: SalConfig,
  /** Runs it works on at once. */
  concurrency: z.int().min(1).max(HELD_RUNS_MAX).default(16),
  /** How long to try to reach a supervisor that went away, milliseconds. */
  reconnectMs: z.int().min(0).max(3_600_000).default(60_000),
  logLevel: z.enum(LOG_LEVELS).default('info'),
});
export type RunnerConfig = z.infer<typeof RunnerConfig>;

const SECRET_VARIABLES = ['HYPHA_RUNNER_TOKEN', 'HYPHA_RUNNER_REDIS_PASSWORD'] as const;

export function readRunnerConfig(argv: readonly string[]): Readonly<RunnerConfig> {
  const config = loadConfig(RunnerConfig, { argv, env: process.env, prefix: 'HYPHA_RUNNER' });
  // Nothing that runs here later, or is started from here, finds them.
  for (const name of SECRET_VARIABLES) delete process.env[name];
  return config;
}
